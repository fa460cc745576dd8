"""Keys: where they come from, who is let in, and that time tells nothing."""

import hashlib
import hmac
from pathlib import Path

import pytest

from metaformer.serve.keys import Keys, check_reachable, is_loopback, read_keys


def test_keys_come_from_the_variable_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the shop\nthree\n\n  four  \none\n")
    assert read_keys(" one, two,,", file) == ("one", "two", "three", "four")
    assert read_keys(None, None) == ()
    assert read_keys("", None) == ()


def test_what_is_no_key_is_told_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("good\nse cret\n")
    with pytest.raises(ValueError, match=r"keys: key 2 is not up to 256 printable") as caught:
        read_keys(None, file)
    assert "cret" not in str(caught.value).replace(str(file), "")
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no key: write one a line"):
        read_keys("good", file)
    with pytest.raises(FileNotFoundError):
        read_keys(None, tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "value", "is_in"),
    [
        (b"authorization", b"Bearer one", True),
        (b"authorization", b"bearer  two ", True),
        (b"x-api-key", b"two", True),
        (b"x-api-key", b"thre", False),
        (b"x-api-key", b"three", False),
        (b"x-api-key", b"", False),
        (b"authorization", b"Basic one", False),
        (b"authorization", b"one", False),
        (b"cookie", b"one", False),
    ],
)
def test_a_key_lets_in(name: bytes, value: bytes, is_in: bool) -> None:
    assert Keys(("one", "two")).let_in([(b"host", b"here"), (name, value)]) == is_in
    assert Keys().let_in([(name, value)])


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, bytes]] = []

    def compared(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return one == other

    keys = Keys(("one", "two", "three"))
    monkeypatch.setattr(hmac, "compare_digest", compared)
    for key in (b"one", b"three", b"x" * 1000):
        asked.clear()
        keys.let_in([(b"x-api-key", key)])
        given = hashlib.sha256(key).digest()
        assert asked == [(given, hashlib.sha256(known).digest()) for known in (b"one", b"two", b"three")]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_without_keys_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    check_reachable(host, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_without_keys_nobody_else(host: str) -> None:
    with pytest.raises(ValueError, match="can be reached from elsewhere, and there is no key: set METAFORMER_KEYS"):
        check_reachable(host, ())
    check_reachable(host, ("one",))
