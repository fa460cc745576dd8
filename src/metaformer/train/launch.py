"""devices=N: the same command again in N processes of this machine, by torch's own launcher, torchrun."""

import os
import sys
from collections.abc import Callable, Sequence

from metaformer.core.parent import LAUNCHER

TOGETHER = ("train",)
"""Verbs that several processes do together."""
MOST = 1024
"""Processes on a machine."""


def check_alone(verb: str | None) -> None:
    """Raises ValueError where torchrun has started something that every process would do again."""
    if _launched() and verb not in TOGETHER:
        raise ValueError(f"metaformer {verb} is done by one process: start it without torchrun")


def launched(words: Sequence[str], check: Callable[[int], None]) -> bool:
    """Where `words` of a command say devices=N: does it in N processes, to its end. False where they do not, or say one.

    Before any is started `check` is told N, and raises what this process can see is wrong. Raises ValueError for what is no
    number, where torchrun has started this process, and SystemExit where a process fails, which then has said why.
    """
    texts = [word.partition("=")[2] for word in words if word.startswith("devices=")]
    if not texts:
        return False
    if len(texts) > 1:
        raise ValueError("devices= is given twice")
    if _launched():
        raise ValueError(f"devices={texts[0]} starts processes, and torchrun has started these: leave it out")
    if not texts[0].isdecimal() or not 1 <= int(texts[0]) <= MOST:
        raise ValueError(f"devices={texts[0]} is not a whole number from 1 to {MOST}")
    if int(texts[0]) == 1:
        return False
    check(int(texts[0]))
    _launch(int(texts[0]), [word for word in words if not word.startswith("devices=")])
    return True


def _launch(count: int, words: list[str]) -> None:
    """Does `metaformer WORDS` in so many processes."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        run.main(["--standalone", f"--nproc-per-node={count}", "-m", "metaformer", *words])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 1)
    except SignalException as error:
        sys.exit(128 + error.sigval)


def _launched() -> bool:
    """Whether torchrun started this process; asked without torch."""
    return "TORCHELASTIC_RUN_ID" in os.environ
