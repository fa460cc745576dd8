"""A process that is to end with the one that started it."""

import ctypes
import os
import signal
import sys

LAUNCHER = "METAFORMER_LAUNCHER"
"""The variable by which devices=N tells its processes whose they are; torchrun tells nothing of the kind."""
_PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h


def die_with_parent(parent: int | None = None) -> None:
    """On Linux the system kills this process with the thread that started it, also in the midst of a call.

    `parent` is the number of that thread's process, where it is known: if it is dead already, this one ends at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
