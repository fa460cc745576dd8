"""`metaformer-slim FILE`: the verb `serve` of metaformer, for one exported classifier."""
