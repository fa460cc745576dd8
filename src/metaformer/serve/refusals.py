"""Why a request is refused: a status, a code for programs, a sentence for people."""

from collections.abc import Iterable
from difflib import get_close_matches

from metaformer.serve.jobs import Full, Late, Lost, Opening, RefusedError, Unable


class Refusal(Exception):  # noqa: N818 -- what is answered, not a fault of ours
    """Answered as `{"error": {"code", "message", "request_id"}}`; `retry_after` seconds make a header of it."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.allow = allow


def from_pool(error: RefusedError) -> Refusal:
    """What the pool said, as an answer."""
    if isinstance(error, Full):
        return Refusal(503, "queue_full", str(error), retry_after=max(1, error.retry_after))
    if isinstance(error, Opening):
        return Refusal(503, "starting", str(error), retry_after=max(1, error.retry_after))
    if isinstance(error, Late):
        return Refusal(503, "late", str(error), retry_after=1)
    if isinstance(error, Unable):
        return Refusal(422, "unable", str(error))
    assert isinstance(error, Lost), error
    return Refusal(503, "worker_lost", str(error), retry_after=1)


COMPARED = 2000
"""Names at most among which a similar one is looked for: nobody else is answered meanwhile, and 21,841 take a second."""


def meant(wrong: str, allowed: Iterable[str], what: str) -> str:
    """The one that was meant, else the first few that there are."""
    names = list(allowed)
    close = get_close_matches(wrong, names, n=1, cutoff=0.6) if len(names) <= COMPARED else []
    if close:
        return f"did you mean {close[0]}?"
    more = ", …" if len(names) > 10 else ""
    return f"{what} {', '.join(names[:10])}{more}"


def quoted(text: str) -> str:
    """A stranger's text in a sentence: short, and in quotes that show what cannot be printed."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
