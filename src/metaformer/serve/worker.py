"""The process of one model: `python -m metaformer.serve.worker FD` answers what comes in at a socket, until it closes.

First comes what to open, then batches: the kind of question, how each image is asked, and the images. While a batch runs,
the next one is decoded.
"""

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from queue import Queue
from typing import Any

from metaformer.core.parent import die_with_parent
from metaformer.serve.frames import receive, send
from metaformer.serve.jobs import Asked
from metaformer.serve.settings import Running


def main() -> None:
    """Deaf to Ctrl-C and SIGTERM, which are the front's: it answers what it took, and then closes the socket."""
    die_with_parent()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    os.dup2(2, 1)  # what a library prints is no answer
    with socket.socket(fileno=int(sys.argv[1])) as link:
        work(link)


def work(link: socket.socket) -> None:
    """Opens, says that it is ready, and answers."""
    try:
        opened = _opened(link, receive(link))
        if opened is not None:
            _answer(link, opened)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _opened(link: socket.socket, setup: dict[str, Any]) -> Any:
    """The model, warm; None where it cannot be opened, which is told."""
    name, source = setup["name"], setup["source"]
    try:
        from metaformer.serve.answer import open_answerer

        running = Running(**setup["running"])
        opened = open_answerer(name, source, running, setup["pixels"], lambda sentence: send(link, ["told", sentence]))
        enough, seconds = opened.warm()
    except ModuleNotFoundError as error:
        what = "all of metaformer" if str(error.name).startswith("metaformer.") else error.name  # metaformer-slim has a part
        send(
            link,
            ["failed", f"{source} needs {what}, which is not installed: a classifier's .onnx file needs neither it nor torch"],
        )
    except (ValueError, OSError) as error:
        send(link, ["failed", str(error)])
    else:
        send(link, ["ready", asdict(opened.model), opened.batch, enough, seconds])
        return opened
    return None


def _answer(link: socket.socket, opened: Any) -> None:
    """In this thread the model, in another what is decoded for it."""
    read: Queue[tuple[Any, list[Asked]] | None] = Queue(maxsize=1)
    threading.Thread(target=_read, args=(link, opened, read), daemon=True).start()
    while (batch := read.get()) is not None:
        began = time.perf_counter()
        records = opened.answer(*batch)
        send(link, ["done", records, time.perf_counter() - began])


def _read(link: socket.socket, opened: Any, read: "Queue[tuple[Any, list[Asked]] | None]") -> None:
    try:
        while True:
            asked, images = receive(link)
            read.put((opened.read(images), [Asked(*one) for one in asked]))
    except (EOFError, ConnectionResetError):
        return
    finally:
        read.put(None)


if __name__ == "__main__":
    main()
