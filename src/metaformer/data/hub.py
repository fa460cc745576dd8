"""Data sets of the Hugging Face hub → their files: Parquet, else tar shards, else what the hub has made of them."""

import posixpath
from typing import Any

from metaformer.data.places import KINDS, Places
from metaformer.data.store import filesystem
from metaformer.data.tables import WORDS

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps other formats as Parquet."""


def find_on_hub(named: str) -> Places:
    """The files of `USER/NAME[:CONFIG]`; the configuration may be left out where there is one, or one called default.

    Raises FileNotFoundError or ValueError with a sentence that says what there is.
    """
    name, _, config = named.partition(":")
    files, root = filesystem(f"hf://datasets/{name}")
    own = _files(files, root)
    kind = next((kind for kind in KINDS[::-1] if any(file.endswith(kind) for file in own)), None)
    if kind is None:
        files, root = filesystem(f"hf://datasets/{name}@{CONVERTED}")
        own, kind = _files(files, root), ".parquet"
    found = _configured({file: posixpath.relpath(file, root) for file in own if file.endswith(kind)}, config, name)
    if any("partial-" in inside for inside in found.values()):
        raise ValueError(f"the hub has made Parquet files of a part of {name} only: fetch it, and name its files")
    return Places(f"hf://{root}", tuple(f"hf://{file}" for file in found))


def _files(files: Any, root: str) -> list[str]:
    """All files below a folder of the hub, sorted; none where there is no such branch."""
    try:
        return sorted(files.find(root))
    except FileNotFoundError:
        return []


def _configured(found: dict[str, str], config: str, name: str) -> dict[str, str]:
    """Those of the files, with their paths in the repository, that belong to a configuration, a folder of its own."""
    if not found:
        raise FileNotFoundError(f"hf:{name} is not on the hub, or has no Parquet or tar files, or needs HF_TOKEN to be seen")
    folders = sorted({inside.split("/")[0] for inside in found.values() if "/" in inside} - {"data"})
    plain = {file: inside for file, inside in found.items() if inside.split("/")[0] not in folders}
    if config and config not in folders:
        raise ValueError(f"hf:{name} has no configuration {config!r}: it has {', '.join(folders) or 'one without a name'}")
    if not config and plain:
        return plain
    chosen = config or ("default" if "default" in folders else folders[0])
    if not config and len(folders) > 1 and chosen != "default" and not _are_parts(folders):
        raise ValueError(f"hf:{name} has several configurations, {', '.join(folders)}: name one, as in hf:{name}:{folders[0]}")
    if not config and _are_parts(folders):
        return found
    return {file: inside for file, inside in found.items() if inside.split("/")[0] == chosen}


def _are_parts(folders: list[str]) -> bool:
    """Whether folders are train, test and the like, and no configurations."""
    return set(folders) <= set(WORDS)
