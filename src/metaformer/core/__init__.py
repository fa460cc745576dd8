"""The ground floor: layers, mixers, the model and its counter. Needs torch and nothing else."""
