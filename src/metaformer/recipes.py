"""Training recipes, name → Recipe: a frozen row each, with its source."""

from metaformer.config import Recipe

DEFAULT = Recipe(model="caformer_t6")
"""Good on a few thousand small images without any option. Ours; measured in docs/results.md."""
