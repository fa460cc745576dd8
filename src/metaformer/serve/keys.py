"""Keys of the service: where they come from, and whether a request has one, told in constant time."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "METAFORMER_KEYS"
KEY = re.compile(r"[!-+\--~]{1,256}")
"""Printable ASCII without spaces and commas, so that it fits in a header and in the variable."""


def read_keys(variable: str | None, file: str | Path | None) -> tuple[str, ...]:
    """Keys of the environment variable (with commas) and of a file (one a line; # begins a comment). ValueError if not one."""
    named: list[tuple[str, str]] = []
    if variable is not None:
        named += [(VARIABLE, key.strip()) for key in variable.split(",") if key.strip()]
    if file is not None:
        lines = [line.strip() for line in Path(file).read_text("utf-8", "replace").splitlines()]
        named += [(f"{file}", line) for line in lines if line and not line.startswith("#")]
        if not any(place == str(file) for place, _ in named):
            raise ValueError(f"{file} holds no key: write one a line, such as the output of `openssl rand -hex 24`")
    for number, (place, key) in enumerate(named, 1):
        if not KEY.fullmatch(key):  # which is not told: what is printed stays in logs
            raise ValueError(f"{place}: key {number} is not up to 256 printable ASCII characters without spaces and commas")
    return tuple(dict.fromkeys(key for _, key in named))


def check_reachable(host: str, keys: tuple[str, ...]) -> None:
    """A service without keys is for this machine alone. Raises ValueError with a sentence."""
    if not keys and not is_loopback(host):
        raise ValueError(
            f"--host {host} can be reached from elsewhere, and there is no key: "
            f"set {VARIABLE}, or give --keys FILE, or leave --host out"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Keys:
    """The keys that are taken; with none every request is let in."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._known = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._known)

    def let_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the headers carry a key: `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Digests of one length are compared with every known key, so time tells neither a key's length nor which one it is.
        """
        if not self._known:
            return True
        found = False
        for name, value in headers:
            if name == b"x-api-key":
                found |= self._is_known(value.strip())
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                found |= self._is_known(value[7:].strip())
        return found

    def _is_known(self, key: bytes) -> bool:
        given, found = _digest(key), False
        for known in self._known:
            found |= hmac.compare_digest(given, known)
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
