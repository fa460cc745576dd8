"""What is asked of a study: which one, how much of it, where it lies; and what its folder holds, with its images or without."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mode
from types import ModuleType
from typing import Any

from metaformer.config import read_json
from metaformer.core.spec import nearest
from metaformer.lab.studies import STUDIES
from metaformer.lab.study import Study
from metaformer.lab.study_find import find_study
from metaformer.lab.study_results import Result, read_rows
from metaformer.own import ask, bring, load, strange
from metaformer.runs import check_name

SCHEMA = 1
"""Version of `study.json`."""
REMEDY = "delete it and give the command again that began the study, which keeps what is trained"


@dataclass(frozen=True)
class Asked:
    """What `study.json` holds: what must be the same when a study goes on."""

    study: str
    """Its name, or the file or module that it is from."""
    settings: dict[str, Any]
    scale: str
    seeds: int | None = field(default=None, compare=False)
    """With how many it was trained last."""
    equal: str = "width"

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"schema": SCHEMA} | asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Wanted:
    """How much of a study is wanted, how it is trained, and where it goes; None is what the study says."""

    seeds: int | None = None
    scale: str | None = None
    rows: str = "*"
    """Globs, with commas between."""
    devices: int = 1
    jobs: int = 1
    name: str | None = None
    root: Path = Path("studies")
    equal: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of a study: all that its tables and pictures are made of."""

    study: Study
    """With the rows that were asked for."""
    path: Path
    asked: Asked
    results: tuple[Result, ...]
    left: int
    """Trainings that are still to come."""

    @property
    def computed(self) -> str:
        """In which precision its rows were."""
        return " and ".join(sorted({one.precision for one in self.results if one.precision})) or "of no precision yet"

    def setting(self, key: str) -> Any:
        """That of the rows' recipes, or of most, where a row has its own."""
        return mode(one.recipe[key] for one in self.results)


def known_of(what: str | Path | Study, settings: Mapping[str, Any], wanted: Wanted) -> Known:
    """What a study's folder holds by itself: its images need not be there. Of each row and seed the last that was done.

    Raises ValueError, FileExistsError or FileNotFoundError with a sentence.
    """
    study, _, path, asked = found(what, settings, wanted, as_it_is=True)
    study = chosen(study, wanted.rows)
    names = {row.name for row in study.rows}
    last = {(one.row, one.seed): one for one in read_rows(path) if one.row in names}
    count = wanted.seeds or asked.seeds
    seeds = sorted({seed for _, seed in last})[:count]
    results = tuple(last[row.name, seed] for row in study.rows for seed in seeds if (row.name, seed) in last)
    trainings = len(study.rows) * (count or study.seeds)
    return Known(study, path, asked, results, max(0, trainings - sum(one.final for one in results)))


def found(
    what: str | Path | Study, settings: Mapping[str, Any], wanted: Wanted, *, as_it_is: bool = False
) -> tuple[Study, Path | None, Path, Asked]:
    """The study, the user's file that it is from, its folder, and what study.json holds or is to hold. With `as_it_is` no
    settings are those that it has.

    Raises ValueError, FileExistsError or FileNotFoundError with a sentence.
    """
    if not isinstance(what, Study) and (Path(what) / "study.json").is_file():
        path = Path(what)
        if settings or wanted.scale or wanted.equal or wanted.name is not None or wanted.root not in (Wanted.root, path.parent):
            raise ValueError(f"a study goes on as it is: study {path} without settings, or start another with name=")
        asked = _read_asked(path)
        bring(asked.settings.get("changes", {}).values())
        study, file = find_study(asked.study, STUDIES, lambda module: _recalled(module, path, asked))
        return replace(study, equal=asked.equal), file, path, asked
    ask(settings.get("changes", {}).values())
    study, file = (what, None) if isinstance(what, Study) else find_study(str(what), STUDIES)
    study = replace(study, equal=wanted.equal or study.equal)
    check_name(wanted.name)
    path = wanted.root / (wanted.name or study.name)
    source = study.name if isinstance(what, Study) else str(what)
    asked = Asked(source, dict(settings), wanted.scale or study.scale, equal=study.equal)
    if (path / "study.json").is_file():
        then = _read_asked(path)
        if as_it_is and not settings and wanted.scale is None and wanted.equal is None:
            asked = replace(then, study=source)
        asked = replace(asked, seeds=then.seeds)
        if then != asked:
            told = ", ".join(f"{key}={value}" for key, value in then.settings.items()) or "no settings"
            kind = f"{then.study} at scale={then.scale} and equal={then.equal}"
            raise FileExistsError(f"{path} is of {kind} with {told}: give this one another name=")
    return replace(study, equal=asked.equal), file, path, asked


def _recalled(module: str, path: Path, asked: Asked) -> ModuleType:
    """The module that a study.json names. Raises ValueError where no command has named it as it is."""
    if (why := strange(module, f"metaformer study {asked.study} ...")) is not None:
        raise ValueError(f"{path} is of {asked.study}: {why}")
    return load(module)


def _read_asked(path: Path) -> Asked:
    try:
        told = read_json(path / "study.json")
    except ValueError as error:
        raise ValueError(f"{error}: {REMEDY}") from error
    if told.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path / 'study.json'} is not of schema {SCHEMA}, the one this version reads and writes")
    for key, usual in (("seeds", None), ("equal", "width")):
        told.setdefault(key, usual)  # an older version did not write it
    names = [f.name for f in fields(Asked)]
    if {*told} != {*names} or not isinstance(told["settings"], dict) or not isinstance(told["seeds"], int | None):
        raise ValueError(f"{path / 'study.json'} is damaged, as it is to hold {', '.join(names)}: {REMEDY}")
    return Asked(**told)


def chosen(study: Study, rows: str) -> Study:
    """The study with the rows that match one of some globs, and those that they are compared with, which are compared with
    nothing where their own base is not among them. Raises ValueError for a glob that none matches."""
    bases = {row.name: study.base(row.name) for row in study.rows}
    matched = set[str]()
    for glob in (one.strip() for one in rows.split(",")):
        found = {name for name in bases if fnmatchcase(name, glob)}
        if not found:
            raise ValueError(f"no row of {study.name} matches {glob!r}{nearest(glob, list(bases))}")
        matched |= found
    wanted = matched | {bases[name] for name in matched}
    against = {name: bases[name] if bases[name] in wanted else name for name in wanted}
    return replace(study, rows=tuple(replace(row, against=against[row.name]) for row in study.rows if row.name in wanted))
