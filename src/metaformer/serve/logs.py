"""Lines of JSON on standard error, one a request: what happened, never what was sent, by whom or with which key."""

import json
import logging
import re
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


def request_id(given: bytes | None) -> str:
    """A client's own id where it is one, else a new one."""
    if given is not None and REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return secrets.token_hex(8)


class Log:
    """Writes lines to a stream, by default to standard error. A reader that went away stops no service."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, fields: Mapping[str, object]) -> None:
        """One line, with the time before all else."""
        stream = self._stream or sys.stderr
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        try:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
        except OSError:
            return


class LogHandler(logging.Handler):
    """What libraries say, as the same kind of lines: `{"time", "level", "logger", "message"}` and an exception's text."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        self._log.write(fields)


def take_over(log: Log) -> None:
    """Warnings of the server's libraries become lines of the log, and what opens; slips of strangers, answers, do not."""
    handler: logging.Handler = LogHandler(log)
    for name in ("uvicorn", "asyncio", "metaformer"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("metaformer.serve").setLevel(logging.INFO)
    for name in ("python_multipart", "python_multipart.multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
