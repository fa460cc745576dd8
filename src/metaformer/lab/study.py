"""A study as data: rows that each change one thing over a common base. `lab/studies.py` has those of the papers."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from metaformer.config import Recipe, revise
from metaformer.core.architecture import SPECS, MetaFormerConfig
from metaformer.core.device import choose_device, choose_precision, precision_name
from metaformer.core.spec import from_text, nearest, to_text
from metaformer.lab.study_code import code_marks
from metaformer.lab.study_key import key_of, marks_of_files
from metaformer.lab.widths import check_equal, nearest_dims, parameters_of
from metaformer.own import FAILURES, ask, changed, references
from metaformer.weights.peers import PREFIX
from metaformer.zoo import T6, WIDE, ZOO, Size, get_config

SCALES: dict[str, tuple[Size, int]] = {
    **{name.rpartition("_")[2]: ((c.depths, c.dims), c.stem_stride) for name, c in reversed(ZOO.items())},
    "t6": (T6, 2),
    "t4": (((1, 1, 1, 1), (16, 16, 32, 32)), 2),
}
"""Depths, channels and stride of the stem by the end of a model's name; t4 is for tests of seconds."""
SCALES.pop("224")
SETTLED = ("seed", "keep", "hours", "patience", "smoke", "start_size")
"""Settings that a study decides itself, or that make its rows something else than rows."""
SHARED = ("data", "labels", "device", "recipe")
"""Settings that are the same for all rows."""
FIELDS = ("model", "changes")
"""What a recipe has among its settings, and a row as a field of its own."""


@dataclass(frozen=True)
class Row:
    """A named change of the base."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's config: specs, numbers, code of your own, or all that as text; in a text {1} to {4} are the sides
    of the stages' maps."""
    _: KW_ONLY
    model: str | None = None
    """Where it is not the study's: a family (caformer), of which scale= says the size, or a model (timm:resnet18)."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of its recipe."""
    deep: int = 1
    """Times as many blocks."""
    wide: bool = False
    """The wider channels of the papers' m sizes, elsewhere one and a half times as many."""
    zoom: float = 1.0
    """Times the side of the images."""
    published: float | None = None
    """Top-1 on ImageNet-1K in percent as a paper gives it, of the size and after the training that `note` says."""
    note: str = ""
    against: str | None = None
    """The row that it is compared with; by default the study's first."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows over a common base: what a table of a paper is made of."""

    name: str
    rows: tuple[Row, ...]
    about: str = ""
    """What it asks, a line."""
    model: str = "poolformerv2"
    """A family, of which scale= says the size, or a model by its full name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all rows' recipes, where the command does not say otherwise."""
    scale: str = "t6"
    seeds: int = 3
    equal: str = "width"
    """What rows have as much of as the one that they are compared with: width, or parameters."""

    def __post_init__(self) -> None:
        check_equal(self.equal)
        names = [row.name for row in self.rows]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the study {self.name!r} needs rows, each with a name of its own: {', '.join(names) or 'none'}")
        if self.name != Path(self.name).name or self.name in ("", ".."):
            raise ValueError(f"the study's name {self.name!r} is not the name of one folder")
        for row in self.rows:
            if row.against is not None and row.against not in names:
                raise ValueError(f"row {row.name!r} is compared with {row.against!r}{nearest(row.against, names)}")
            for key in SETTLED:
                if key in row.settings or key in self.settings:
                    raise ValueError(f"{key}= is not for a study: its seeds are seeds=, and all rows learn equally long")
            for key in row.settings:
                if key in SHARED:
                    raise ValueError(f"row {row.name!r}: {key}= is the same for all rows, give it to the study")
                if key in FIELDS:
                    raise ValueError(f"row {row.name!r}: {key} is no setting but a field of the row, Row({key}=...)")
        if "model" in self.settings:
            raise ValueError("model is no setting but a field of the study, Study(model=...)")

    def base(self, row: str) -> str:
        """The row that this one is compared with."""
        return next(one for one in self.rows if one.name == row).against or self.rows[0].name

    def root(self, row: str) -> str:
        """The row that this one is compared with, or that one, and so on to the end."""
        seen = [row]
        while (base := self.base(seen[-1])) not in seen:
            seen.append(base)
        return seen[-1]


@dataclass(frozen=True)
class Entry:
    """A row with a seed: what is trained once. `key` is of all that decides its result."""

    row: str
    seed: int
    recipe: Recipe
    code: Mapping[str, str]
    """Modules of the user's own that its recipe names, and the hash of what they compute."""
    key: str
    shape: MetaFormerConfig | None
    """The model's config; None of a timm model."""


# --- what a row's model is --------------------------------------------------------------------------------------------


def sized(model: str, scale: str) -> tuple[str, dict[str, Any]]:
    """The name of the zoo (or of timm's) and the changed fields that a family in a size stands for. Raises ValueError."""
    if scale not in SCALES:
        raise ValueError(f"no scale {scale!r}{nearest(scale, list(SCALES))}")
    if model in ZOO or model.startswith(PREFIX):
        return model, {}
    if f"{model}_{scale}" in ZOO:
        return f"{model}_{scale}", {}
    families = [name.rpartition("_")[0] for name in ZOO if name.rpartition("_")[2] in SCALES]
    if model not in families:
        raise ValueError(f"no model or family {model!r}{nearest(model, list(dict.fromkeys(families)))}")
    (depths, dims), stride = SCALES[scale]
    name = next(name for name in ZOO if name.rpartition("_")[0] == model)
    return name, {"depths": depths, "dims": dims, "stem_stride": stride}


def sides(size: int, stem_stride: int, stages: int = 4) -> list[int]:
    """Sides of the stages' maps of square images."""
    found = [(size - 3) // 4 + 1 if stem_stride == 4 else -(-size // stem_stride)]
    while len(found) < stages:
        found.append(-(-found[-1] // 2))
    return found


def _shaped(row: Row, study: Study, scale: str, given: Mapping[str, str], size: int | None) -> tuple[str, dict[str, Any]]:
    """The model's name, and the fields that are changed: by the scale, by the user, by the row; each over those before."""
    name, changes = sized(row.model or study.model, scale)
    if name.startswith(PREFIX):
        if row.changes or given or row.deep != 1 or row.wide:
            raise ValueError(f"{name} is timm's, so nothing of it can be changed")
        return name, {}
    changes |= given
    config = get_config(name, **changes)
    if row.deep != 1:
        changes["depths"] = tuple(row.deep * depth for depth in config.depths)
    if row.wide:
        changes["dims"] = WIDE if config.dims == ZOO["poolformer_s12"].dims else tuple(3 * dim // 2 for dim in config.dims)
    places = sides(round((size or 56 * config.stem_stride) * row.zoom), config.stem_stride, len(config.dims))
    return name, changes | {key: _placed(value, places) for key, value in row.changes.items()}


def _placed(value: Any, places: Sequence[int]) -> Any:
    if isinstance(value, str):
        for number, side in enumerate(places, 1):
            value = value.replace(f"{{{number}}}", str(side))
    return value


def _text(value: Any) -> str:
    """A field's value as a command line has it."""
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return value if isinstance(value, str) else to_text(value) if callable(value) else repr(value)


# --- from rows to what is trained -------------------------------------------------------------------------------------


def entries(
    study: Study,
    base: Recipe,
    scale: str,
    seeds: int,
    *,
    channels: int,
    classes: int,
    mark: str,
    size: int | None,
    precision: str,
) -> list[Entry]:
    """Every row with every seed, those of the first seed first. `base` is the recipe without any row's model in it; `mark` is
    of the data, of so many channels and classes and sides of `size`; `precision` is what is computed in.

    Raises ValueError that names the row where something of it is wrong.
    """
    for row in study.rows:
        for key in row.changes:
            if key in base.changes:
                raise ValueError(f"row {row.name!r} of the study sets model.{key} itself: leave it out")

    def resolved(study: Study) -> list[tuple[str, Recipe, MetaFormerConfig | None]]:
        return [(row.name, *_resolved(row, study, base, scale, size, fixed)) for row in study.rows]

    fixed = {"num_classes": classes, "in_chans": channels}
    made = resolved(study)
    if study.equal == "parameters":
        made = resolved(_of_equal_parameters(study, {row: shape for row, _, shape in made}))
    files = marks_of_files(recipe for _, recipe, _ in made)
    found = []
    for seed in range(base.seed, base.seed + seeds):
        for row, recipe, shape in made:
            seeded = replace(recipe, seed=seed)
            told = seeded if seeded.image_size is not None else replace(seeded, image_size=size)
            computed = precision if recipe.precision == base.precision else computed_in(recipe)
            code = marks_of(recipe)
            found.append(Entry(row, seed, seeded, code, key_of(told, shape, mark, computed, code, files), shape))
    return found


def computed_in(recipe: Recipe) -> str:
    """What `precision` comes to on its device, as keys have it."""
    named = precision_name(choose_precision(recipe.precision, choose_device(recipe.device)))
    return recipe.precision if recipe.precision == "tf32" else named


def _of_equal_parameters(study: Study, shapes: Mapping[str, MetaFormerConfig | None]) -> Study:
    """The same, but rows that say nothing of width are as wide as gives them the parameters of their root."""

    def even(row: Row) -> Row:
        root, shape, target = study.root(row.name), shapes[row.name], shapes[study.root(row.name)]
        if root == row.name or row.wide or "dims" in row.changes:
            return row
        if shape is None or target is None:
            raise ValueError(f"row {row.name!r}: timm's models are as wide as they are, leave out equal=parameters")
        try:
            dims = nearest_dims(lambda dims: replace(shape, dims=dims), shape.dims, parameters_of(target))
        except FAILURES as error:
            raise ValueError(f"row {row.name!r}: no model of other widths can be made for equal=parameters: {error}") from error
        return replace(row, changes={**row.changes, "dims": dims})

    return replace(study, rows=tuple(map(even, study.rows)))


def _resolved(
    row: Row, study: Study, base: Recipe, scale: str, size: int | None, fixed: Mapping[str, int]
) -> tuple[Recipe, MetaFormerConfig | None]:
    """The recipe of a row, and its model's config if that is ours. Raises ValueError that names the row."""
    try:
        return _made_of(row, study, base, scale, size, fixed)
    except ValueError as error:
        raise ValueError(f"row {row.name!r}: {error}") from None


def _made_of(
    row: Row, study: Study, base: Recipe, scale: str, size: int | None, fixed: Mapping[str, int]
) -> tuple[Recipe, MetaFormerConfig | None]:
    size = row.settings.get("image_size", size)
    name, changes = _shaped(row, study, scale, dict(base.changes), size)
    texts = {key: _text(value) for key, value in changes.items()}
    ask(texts.values())
    for value in changes.values():
        _check_told(value)
    for module, _ in references(texts):
        if changed(module):
            raise ValueError(f"{module} has changed since this process imported it: start another one")
    settings: dict[str, Any] = {"model": name, "changes": texts, "keep": 1} | dict(row.settings)
    if row.zoom != 1.0:
        if size is None:
            raise ValueError("images have many sizes here: zoom is for those of one, image_size=224 makes it so")
        settings["image_size"] = round(size * row.zoom)
    recipe = revise(base, settings)
    if name.startswith(PREFIX):
        return recipe, None
    rates = {"drop_path": recipe.drop_path, "head_dropout": recipe.head_dropout}
    shape = get_config(name, **{**rates, **changes, **fixed})
    own = {key: _text(getattr(shape, key)) for key, text in texts.items() if any(references(text))}
    return replace(recipe, changes={**recipe.changes, **own}), shape


def _check_told(value: Any) -> None:
    """Raises ValueError for code that another process could not make of its text."""
    for one in value if isinstance(value, (tuple, list)) else (value,):
        if not callable(one):
            continue
        try:
            again = from_text(to_text(one), SPECS)
        except ValueError:
            again = None
        if again != one:
            named = getattr(one, "__qualname__", type(one).__qualname__)
            to_do = "write a class, a function or a frozen dataclass at the top of a file"
            raise ValueError(f"{named} cannot be told to another process: {to_do}")


def marks_of(recipe: Recipe) -> dict[str, str]:
    """The modules of the user's own that it names, and the hash of what they compute, whatever studies are in them."""
    return code_marks(dict(recipe.changes), aside=(Study, Row))
