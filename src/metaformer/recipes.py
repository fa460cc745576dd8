"""Training recipes, name → Recipe: a frozen row each, with its source."""

from metaformer.config import Recipe

SMALL = Recipe(model="caformer_t6")
"""For many small images (digits, Fashion-MNIST, CIFAR-10). Ours; measured in docs/results.md."""

PHOTOS = Recipe(
    model="caformer_t6", recipe="photos", epochs=60, batch=32, lr=1e-3, warmup_epochs=5.0,
    crop=0.35, pad=0.0, randaugment="rand-m6-mstd0.5-inc1", drop_path=0.1,
)  # fmt: skip
"""For some hundreds or thousands of photographs of all sizes. Ours; measured in docs/results.md."""

RECIPES: dict[str, Recipe] = {"small": SMALL, "photos": PHOTOS}
