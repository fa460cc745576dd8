"""A worker whose model does what its images say: `scripted.COMMAND` starts one.

An image is words: `sleep 0.2` takes so long, `hang` for ever, `segfault` kills the process while it is decoded, `raise`
ends it then with a trace; anything else is answered at once. Each record says how many images its batch had, and which process
answered.
"""

import atexit
import ctypes
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaformer.serve import worker
from metaformer.serve.frames import send
from metaformer.serve.jobs import Asked, Model

COMMAND = (sys.executable, __file__)


class Scripted:
    def __init__(self, setup: dict[str, Any]) -> None:
        self.batch = setup["running"]["batch"]
        word, _, number = setup["source"].partition(" ")
        self.enough = int(number) if word == "enough" else self.batch
        self.model = Model(setup["name"], "script", "classification", ("a", "b"), 8, "auto", "fp32", embeds=2)

    def read(self, images: Sequence[bytes]) -> list[str]:
        found = [image.decode() for image in images]
        if "segfault" in found:
            ctypes.string_at(0)
        if "raise" in found:
            atexit.register(lambda: time.sleep(0.5) or os.write(2, b"written at the end\n"))
            raise RuntimeError("an image that nobody has thought of")
        return found

    def answer(self, read: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, Any]]:
        for word in read:
            time.sleep(1e4 if word == "hang" else float(word.removeprefix("sleep ")) if word.startswith("sleep ") else 0)
        size, kinds = len(read), {one.kind for one in asked}
        assert len(kinds) == 1, kinds
        known = {"size": size, "process": os.getpid(), "kind": kinds.pop()}
        return [{"word": word, "top": one.top, **known} for word, one in zip(read, asked, strict=True)]


def opened(link: Any, setup: dict[str, Any]) -> Scripted | None:
    """`broken` says why it cannot be opened, `dies` says nothing; `once FILE` can be opened while there is no FILE.

    Of `enough 2` batches of two are as good as larger ones.
    """
    word, _, file = setup["source"].partition(" ")
    if word == "broken":
        send(link, ["failed", "there is no such model"])
        return None
    if word == "dies" or (word == "once" and Path(file).exists()):
        os._exit(3)
    made = Scripted(setup)
    send(link, ["told", f"{setup['name']} is opened"])
    send(link, ["ready", asdict(made.model), made.batch, made.enough, 0.001])
    return made


if __name__ == "__main__":
    worker._opened = opened
    worker.main()
