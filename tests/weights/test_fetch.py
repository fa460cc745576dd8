"""Fetching, from a server on this machine that is slow, cuts off, lies, refuses and fails."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.hub import Handler, Hub

from metaformer import download
from metaformer.weights import fetch
from metaformer.weights.catalogue import Published, find
from metaformer.weights.fetch import fetch_hub, local_names

CONTENT = bytes(range(256)) * 40
ROW = find("caformer_s18")
PLACE = "timm/caformer_s18.sail_in1k/model.safetensors"
GITHUB = find("metaformer_pppa_s12_224")
MM = replace(find("poolformer_s12", "in1k@mmpretrain"), file=f"a-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth")


@pytest.fixture(autouse=True)
def files(hub: Hub) -> None:
    hub.files[PLACE] = CONTENT
    hub.files[f"/weights/{GITHUB.file}"] = CONTENT
    hub.files[f"/weights/{MM.file}"] = CONTENT


def cached() -> dict[str, int]:
    """The files in the cache with their sizes, without locks."""
    return {p.name: p.stat().st_size for p in fetch.cache_folder().rglob("*") if p.is_file() and p.suffix != ".lock"}


@pytest.mark.parametrize("row", [ROW, GITHUB, MM], ids=lambda row: row.format)
def test_a_file_comes_once(hub: Hub, row: Published) -> None:
    file = fetch.fetch(row)
    assert file.read_bytes() == CONTENT
    assert cached() == {file.name: len(CONTENT)}
    asked = len(hub.asked)
    assert fetch.fetch(row) == file
    assert len(hub.asked) == asked


@pytest.mark.parametrize("row", [ROW, GITHUB, MM], ids=lambda row: row.format)
@pytest.mark.parametrize("plan", [["cut"], ["cut", "cut", "500"], ["cut", "no ranges"], ["429"], ["503", "408"], ["500"] * 4])
def test_what_passes_is_tried_again(hub: Hub, row: Published, plan: list[str]) -> None:
    hub.plan = list(plan)
    assert fetch.fetch(row).read_bytes() == CONTENT
    assert len(hub.gets()) == len(plan) + ("no ranges" not in plan)
    if plan == ["cut"]:
        assert hub.gets() == [None, f"bytes={len(CONTENT) // 2}-"]


@pytest.mark.parametrize("plan", [["429"], ["500", "502", "503", "504"]])
def test_the_hub_is_asked_again(hub: Hub, plan: list[str]) -> None:
    hub.heads = list(plan)
    assert fetch.fetch(ROW).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (["500"] * 5, "the server says 500 Internal Server Error, 5 times"),
        (["429"] * 5, "the server says 429 Too Many Requests, 5 times"),
    ],
)
def test_what_does_not_pass_is_one_sentence(hub: Hub, plan: list[str], said: str) -> None:
    for where in (hub.plan, hub.heads):
        where[:] = plan
        with pytest.raises(
            ConnectionError, match=rf"^cannot (download|ask for) \S+model.safetensors: {said}; try again later"
        ) as caught:
            fetch.fetch(ROW)
        assert "\n" not in str(caught.value)
        assert cached() == {}
        where.clear()


def test_a_line_that_always_breaks_goes_on_next_time(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 2)
    hub.plan = ["cut", "cut"]
    with pytest.raises(ConnectionError, match=r"the connection ended after 7,680 of 10,240 bytes, 2 times"):
        fetch.fetch(ROW)
    assert cached() == {"model.safetensors.part": 7680}
    assert fetch.fetch(ROW).read_bytes() == CONTENT
    assert hub.gets()[-1] == "bytes=7680-"


def test_a_silent_server_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "TRIES", 2)
    hub.plan = ["silent", "silent"]
    started = time.monotonic()
    with pytest.raises(ConnectionError, match="timed out, 2 times"):
        fetch.fetch(ROW)
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("row", [ROW, GITHUB], ids=lambda row: row.format)
def test_refused_at_once(hub: Hub, row: Published) -> None:
    for code, kind in (
        ("401", PermissionError),
        ("403", PermissionError),
        ("404", FileNotFoundError),
        ("410", FileNotFoundError),
    ):
        hub.plan, hub.asked = [code], []
        with pytest.raises(kind, match=rf"^http\S+: the server says {code} \w+") as caught:
            fetch.fetch(row)
        assert "\n" not in str(caught.value)
        assert len(hub.gets()) == 1
        assert cached() == {}


# fmt: off
HEADS = [
    ("no repo", FileNotFoundError, f"^Hugging Face has no {PLACE}, or you may not see it: .* hf auth login$"),
    ("401", PermissionError,   f"^{PLACE}: the server says 401 Unauthorized: log in with hf auth login, or check HF_TOKEN$"),
    ("403", PermissionError,   f"^{PLACE}: the server says 403 Forbidden: log in with hf auth login, or check HF_TOKEN$"),
    ("404", FileNotFoundError, f"^{PLACE}: the server says 404 Not Found$"),
]
# fmt: on


@pytest.mark.parametrize(("code", "kind", "sentence"), HEADS)
def test_the_hub_refuses(hub: Hub, code: str, kind: type[OSError], sentence: str) -> None:
    hub.heads = [code]
    with pytest.raises(kind, match=sentence):
        fetch.fetch(ROW)
    assert len(hub.asked) == 1
    assert cached() == {}


def test_a_file_that_the_repository_does_not_have(hub: Hub) -> None:
    with pytest.raises(FileNotFoundError, match=r"^Hugging Face has no file timm/caformer_s18.sail_in1k/other.bin$"):
        fetch_hub("timm/caformer_s18.sail_in1k", "other.bin")
    with pytest.raises(ValueError, match=r"^a b/c/model.json names no Hugging Face repository: write USER/NAME$"):
        fetch_hub("a b/c", "model.json")


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("smaller", r"10,240 bytes came, and it has 10,239"),
        ("larger", r"10,240 bytes came, and it has 10,241"),
        ("hash", "its sha256 hash differs"),
    ],
)
def test_a_server_that_lies(hub: Hub, lie: str, said: str) -> None:
    hub.heads = [lie]
    with pytest.raises(ValueError, match=rf"^what came from \S+ is not the published file \({said}\): try again$"):
        fetch.fetch(ROW)
    assert cached() == {}
    assert fetch.fetch(ROW).read_bytes() == CONTENT


def test_another_file_under_the_name(hub: Hub) -> None:
    hub.files[f"/weights/{MM.file}"] = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match="its sha256 hash differs"):
        fetch.fetch(MM)
    assert cached() == {}


def test_a_page_to_log_in_is_no_file(hub: Hub) -> None:
    hub.plan = ["html"]
    with pytest.raises(ValueError, match="answers with a web page: does this network want you to log in"):
        fetch.fetch(GITHUB)
    assert cached() == {}


@pytest.mark.parametrize("rest", [CONTENT + b"more", b"x" * 20_000])
def test_a_rest_of_something_else_is_thrown_away(hub: Hub, rest: bytes) -> None:
    for row in (ROW, GITHUB):
        file = fetch.fetch(row)
        file.rename(f"{file}.part")
        Path(f"{file}.part").write_bytes(rest)
        assert fetch.fetch(row).read_bytes() == CONTENT


def test_whole_but_not_renamed(hub: Hub) -> None:
    for row in (ROW, GITHUB):
        file = fetch.fetch(row)
        file.rename(f"{file}.part")
        assert fetch.fetch(row).read_bytes() == CONTENT


def test_the_token_stays_with_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files["me/mine/small.json"] = b"{}"
    hub.plan = ["moved"]
    assert fetch_hub("me/mine", "small.json").read_bytes() == b"{}"
    fetch.fetch(ROW)
    sent = {path for path, token in hub.tokens if token == "Bearer hf_secret"}
    assert sent == {
        "HEAD /me/mine/resolve/main/small.json", "GET /me/mine/resolve/main/small.json",
        "HEAD /timm/caformer_s18.sail_in1k/resolve/main/model.safetensors",
    }  # fmt: skip


def test_a_resumed_file_is_resumed_where_it_moved_to(hub: Hub) -> None:
    hub.plan = ["moved", "cut", "moved"]
    assert fetch.fetch(GITHUB).read_bytes() == CONTENT
    assert hub.gets() == [None, None, "bytes=5120-", "bytes=5120-"]


def test_pauses_double_or_last_as_long_as_the_server_says(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download, "PAUSE", 1.0)
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    hub.plan = ["500"] * 4
    fetch.fetch(GITHUB)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    pauses.clear()

    def busy() -> None:
        raise download.refused("x", 429, "7") if len(pauses) < 2 else download.refused("x", 503, "999")

    with pytest.raises(ConnectionError):
        download.retried(busy, "x", 4)
    assert pauses == [7.0, 7.0, 60.0]


# --- without a network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["METAFORMER_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    for row in (ROW, GITHUB):
        with pytest.raises(FileNotFoundError, match=rf"^{row.name} is not on this machine, and METAFORMER_OFFLINE or"):
            fetch.fetch(row)
    assert hub.asked == []
    monkeypatch.setenv(variable, "0")
    files = [fetch.fetch(row) for row in (ROW, GITHUB)]
    monkeypatch.setenv(variable, "1")
    asked = len(hub.asked)
    assert [fetch.fetch(row) for row in (ROW, GITHUB)] == files
    assert len(hub.asked) == asked


def test_nobody_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("METAFORMER_MIRROR", "http://127.0.0.1:9")
    for row in (ROW, GITHUB):
        with pytest.raises(
            ConnectionError, match=r"^cannot (download|ask for) \S+: .*refused.*, 5 times; try again later"
        ) as caught:
            fetch.fetch(row)
        assert "\n" not in str(caught.value)


def test_a_file_of_one_s_own_is_asked_for_again_and_serves_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["me/mine/model.json"] = b"one"
    assert fetch_hub("me/mine", "model.json").read_bytes() == b"one"
    hub.files["me/mine/model.json"] = b"two"
    assert fetch_hub("me/mine", "model.json").read_bytes() == b"two"
    hub.heads = ["500"]
    assert fetch_hub("me/mine", "model.json").read_bytes() == b"two"
    monkeypatch.setenv("METAFORMER_OFFLINE", "1")
    assert fetch_hub("me/mine", "model.json").read_bytes() == b"two"


def test_what_another_program_has_downloaded_serves(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    theirs = hf_hub_download(
        "timm/caformer_s18.sail_in1k", "model.safetensors", endpoint=hub.address, cache_dir=tmp_path / "hf"
    )
    asked = len(hub.asked)
    assert fetch.fetch(ROW) == Path(theirs)
    assert len(hub.asked) == asked


# --- a folder of weights ----------------------------------------------------------------------------------------------


NAMES = [
    "caformer_s18.in1k.safetensors", "caformer_s18.in1k.pth", "caformer_s18.safetensors", "caformer_s18.pth",
    "caformer_s18.sail_in1k.safetensors", "caformer_s18.sail_in1k/model.safetensors",
    "timm--caformer_s18.sail_in1k/model.safetensors", "caformer/caformer_s18.pth",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by", ["variable", "folder"])
def test_natural_names_in_a_folder(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by: str) -> None:
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"w")
    if by == "variable":
        monkeypatch.setenv("METAFORMER_WEIGHTS", str(tmp_path / "mine"))
    assert fetch.fetch(ROW, folder=tmp_path / "mine" if by == "folder" else None) == file
    assert hub.asked == []


def test_a_folder_does_not_mix_up_sets(hub: Hub, tmp_path: Path) -> None:
    assert set(NAMES) == set(local_names(ROW))
    large = local_names(find("caformer_s18", "in1k_384"))
    assert "caformer_s18_384.pth" in large
    assert not set(large) & set(local_names(ROW))
    v1 = local_names(find("poolformer_s12"))
    assert {"poolformer_s12.pth.tar", "poolformer_s12/pytorch_model.bin"} < set(v1)
    assert "poolformer-s12_3rdparty_32xb128_in1k_20220414-f8d83051.pth" in v1
    assert not {"model.safetensors", "pytorch_model.bin"} & set(v1)
    (tmp_path / "caformer_s18_384.pth").touch()
    assert fetch.find_local(ROW, tmp_path) is None
    assert fetch.fetch(ROW, folder=tmp_path).read_bytes() == CONTENT


def test_a_folder_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFORMER_WEIGHTS", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"^METAFORMER_WEIGHTS=/nowhere is no folder: name one that holds"):
        fetch.fetch(ROW)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"METAFORMER_CACHE": "~/own"}, "HOME/own/weights"),
        ({"METAFORMER_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/metaformer/weights"),
        ({"METAFORMER_CACHE": ""}, "HOME/.cache/metaformer/weights"),
    ],
)
def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(fetch.cache_folder()) == folder.replace("HOME", str(tmp_path))


# --- the bar ----------------------------------------------------------------------------------------------------------


def test_a_bar_only_where_somebody_sees_it(
    hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.fetch(GITHUB)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    fetch.fetch(ROW, quiet=True)
    assert capsys.readouterr() == ("", "")
    fetch.fetch(MM)
    out, err = capsys.readouterr()
    assert out == ""
    assert "downloading poolformer_s12.in1k" in err


@pytest.mark.parametrize("commit", ["../../outside", "/outside", "main"])
def test_a_commit_that_is_none_names_no_folder(hub: Hub, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    monkeypatch.setattr(Handler, "_state", lambda *_: commit)
    with pytest.raises(ValueError, match="the server tells no commit of this file, so it is no Hugging Face hub"):
        fetch.fetch(ROW)
    assert cached() == {}
