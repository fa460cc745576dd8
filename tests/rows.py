"""Rows of studies as they are resolved, without data; a study of one's own; and how studies take little time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pytest

from metaformer.lab import study_report, study_speed, study_worker
from metaformer.lab.study import Entry, Study, entries
from metaformer.recipes import SMALL

BASE = replace(SMALL, changes={})
OWN = """
from torch import nn
from metaformer import Row, Study

class Nothing(nn.Identity):
    def __init__(self, dim): super().__init__()

STUDY = Study(name="nothing", rows=(Row("pooling"), Row("nothing", {"mixers": Nothing})))
"""


def resolved(study: Study, scale: str = "t6", size: int = 28, seeds: int = 1, **changes: Any) -> list[Entry]:
    base = replace(BASE, **{key: value for key, value in changes.items() if key not in ("mark", "precision")})
    told = {"mark": "m", "precision": "fp32"} | {key: changes[key] for key in ("mark", "precision") if key in changes}
    return entries(study, base, scale, seeds, channels=3, classes=1000, size=size, **told)


def _told_in_its_log(link: Any, place: study_worker.Place, serve: Any = study_worker.serve) -> None:
    """What a new process says goes to its log, and what a forked one says to pytest."""
    sys.stderr = place.log.open("a")
    serve(link, place)


@contextmanager
def quick_studies() -> Iterator[None]:
    """Processes are forked, which need no import of what this one has; speeds are measured in no time, and pictures have tests
    of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_worker, "CONTEXT", get_context("fork"))
        patch.setattr(study_worker, "serve", _told_in_its_log)
        patch.setattr(study_speed, "SECONDS", 1e-4)
        patch.setattr(study_speed, "ROUNDS", 2)
        patch.setattr(study_report.study_plots, "accuracy", lambda *_: None)
        patch.setattr(study_report.study_plots, "learning", lambda *_: None)
        yield
