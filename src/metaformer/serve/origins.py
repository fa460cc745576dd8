"""Whose pages may ask. Without a key to send, a browser on this machine could be led here by any page, under any name."""

import re
from collections.abc import Iterable, Mapping

from metaformer.serve.keys import is_loopback
from metaformer.serve.refusals import Refusal, quoted

ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?|\*")


class Origins:
    """The origins that were named, beside the service's own. Raises ValueError with a sentence for what is none."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        self.named = list(named)
        for origin in self.named:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"--allow-origin {origin!r} is not an origin such as https://example.org or http://localhost:3000"
                )
        self._known = {origin.lower() for origin in self.named}
        self._hosts = {origin.partition("://")[2] for origin in self._known}

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Of a service without keys. Raises Refusal: 403.

        A page of elsewhere may send forms here, whose answers it cannot read (Origin tells), and read answers too where its
        name is made to mean this machine (Host tells). Who sends neither is no browser.
        """
        if "*" in self._known:
            return
        host, origin = (headers.get(name, b"").decode("latin-1").lower() for name in (b"host", b"origin"))
        if host and not _is_here(host) and host not in self._hosts:
            said = f"without keys this service is for its own machine, as localhost or 127.0.0.1, not as {quoted(host)}"
            raise Refusal(403, "wrong_host", f"{said}: start it with keys, or with --allow-origin")
        if origin and origin not in self._known and origin.partition("://")[2] != host:
            said = f"a page of {quoted(origin)} asks, and without keys only the service's own does"
            raise Refusal(403, "wrong_origin", f"{said}: start it with --allow-origin")


def _is_here(host: str) -> bool:
    """Whether a name, perhaps with a port, is this machine's whatever a name server says."""
    name = re.sub(r":\d*$", "", host).strip("[]")
    return is_loopback(name) or name.endswith(".localhost")
