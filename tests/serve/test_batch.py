"""A job in parts: the same answers from every kind of input, each input once, whatever is damaged or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.export.test_dense import saved as saved_dense
from tests.serve.bucket import serving
from tests.serve.many_images import COUNT, DAMAGED, contents, rows_of, write_images, write_model, write_rows, write_tar
from tests.tiny import Stopped, command

from metaformer import Asking, Predictor
from metaformer.export.compare import drawn
from metaformer.infer.embed import Embedder
from metaformer.serve.batch import on_ray, show
from metaformer.serve.batch import worker as module
from metaformer.serve.batch.folder import Done, Folder
from metaformer.serve.batch.inputs import list_parts
from metaformer.serve.batch.job import Job, run_job
from metaformer.serve.batch.show import show_job
from metaformer.serve.batch.work import Work, source_sha256

pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images") / "photos")


def job(model: Path, place: Path | str, *words: object, size: int = 8, **changes: Any) -> Job:
    work = Work("predict", str(model), threads=1, sha256=source_sha256(str(model)))
    return Job(replace(work, **changes), tuple(map(str, words)), str(place), size=size)


def finish(asked: Job) -> Any:
    """The last state of a job."""
    return list(run_job(asked))[-1]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


# --- the same answers -------------------------------------------------------------------------------------------------


def check_answers(folder: Path, model: Path, images: list[Path], names: list[str]) -> None:
    """What a Predictor says of the files is in the folder, under these names; errors have their reasons."""
    good, wrong = rows_of(folder)
    expected = Predictor(model, threads=1)(images)
    assert [row["path"] for row in good] == [name for name, answer in zip(names, expected, strict=True) if answer.error is None]
    assert [row["path"] for row in wrong] == [names[i] for i in DAMAGED]
    for row, answer in zip(good, (answer for answer in expected if answer.error is None), strict=True):
        assert list(row) == ["path", *(f"{key}{n}" for n in ("", "_2", "_3", "_4", "_5") for key in ("label", "probability"))]
        found = [(row[f"label{n}"], row[f"probability{n}"]) for n in ("", "_2", "_3", "_4", "_5")]
        assert [name for name, _ in found] == [name for name, _ in answer.top]
        assert [value for _, value in found] == pytest.approx([value for _, value in answer.top], abs=2e-6)
    for row, i in zip(wrong, DAMAGED, strict=True):
        assert row["error"] == str(expected[i].error).removeprefix(f"{images[i]}: ")


def test_files(model: Path, images: list[Path], tmp_path: Path) -> None:
    state = finish(job(model, tmp_path / "out", images[0].parent))
    assert (state.parts, state.images, state.errors) == (5, COUNT - 2, 2)
    check_answers(tmp_path / "out", model, images, list(map(str, images)))
    told = manifest(tmp_path / "out")
    assert (told["schema"], told["complete"], told["parts"], told["images"], told["errors"]) == (1, True, 5, 38, 2)
    assert told["done"][0] == {"part": 0, "images": 7, "errors": 1}
    assert told["job"]["sha256"] == source_sha256(str(model))
    assert not list((tmp_path / "out").glob(".part*"))


@pytest.mark.parametrize("struct", [True, False])
def test_rows_of_parquet(model: Path, images: list[Path], tmp_path: Path, struct: bool) -> None:
    """A group of rows is never in two parts."""
    table = write_rows(tmp_path / "a.parquet", struct=struct)
    state = finish(job(model, tmp_path / "out", table))
    assert [one.images + one.errors for one in state.done] == [16, 16, 8]
    check_answers(tmp_path / "out", model, images, [f"{table} row {i}" for i in range(COUNT)])


def test_members_of_tars(model: Path, images: list[Path], tmp_path: Path) -> None:
    """A tar is a part; what is no image in it is left alone."""
    tars = [write_tar(tmp_path / "t-0.tar", last=25), write_tar(tmp_path / "t-1.tar", 25)]
    state = finish(job(model, tmp_path / "out", tmp_path / "t-{0..1}.tar"))
    assert [one.images + one.errors for one in state.done] == [25, 15]
    check_answers(tmp_path / "out", model, images, [f"{tars[i >= 25]} {i:02d}.png" for i in range(COUNT)])


@pytest.mark.parametrize("form", ["files", "rows", "tar"])
def test_what_lies_elsewhere(model: Path, images: list[Path], tmp_path: Path, form: str) -> None:
    """And answers that go there."""
    files = fsspec.filesystem("memory")
    files.rm("/", recursive=True) if files.ls("/") else None
    table, tar = write_rows(tmp_path / "a.parquet"), write_tar(tmp_path / "a.tar")
    for path in (*images, table, tar):
        files.pipe_file(f"/in/{path.name}", path.read_bytes())
    word, names = {
        "files": ("memory://in", [f"memory:///in/{path.name}" for path in images]),
        "rows": ("memory://in/a.parquet", [f"memory://in/a.parquet row {i}" for i in range(COUNT)]),
        "tar": ("memory://in/*.tar", [f"memory:///in/a.tar {path.name}" for path in images]),
    }[form]
    finish(job(model, "memory://out", word))
    files.get("/out", str(tmp_path / "out"), recursive=True)
    check_answers(tmp_path / "out", model, images, names)
    assert next(run_job(job(model, "memory://out", word))).errors == 2  # nothing is left to do
    files.rm("/", recursive=True)


def test_a_bucket(model: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images from there and answers to there, with nothing installed but pyarrow; the keys come from the environment."""
    for name in ("METAFORMER_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as (address, objects):
        for name, value in (("ENDPOINT_URL", address), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("REGION", "c")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        objects |= {f"in/{path.name}": path.read_bytes() for path in images}
        asked = job(model, "s3://bucket/out", "s3://bucket/in")
        finish(asked)
        assert not [key for key in objects if key.startswith("out/tries")]
        del objects["out/part-00002.parquet"]
        assert [len(state.done) for state in run_job(asked)] == [4, 5]
        for key, content in ((key, content) for key, content in objects.items() if not key.endswith("/")):
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(content)
    check_answers(tmp_path / "out", model, images, [f"s3://bucket/in/{path.name}" for path in images])


def test_threads_that_read_ahead_change_nothing(model: Path, images: list[Path], tmp_path: Path) -> None:
    finish(job(model, tmp_path / "out", *images, threads=3))
    check_answers(tmp_path / "out", model, images, list(map(str, images)))
    asked: list[int] = []
    for i, found in enumerate(module.ahead(lambda n: asked.append(n) or n, iter(range(100)), 2, 5)):
        assert found == i
        assert max(asked) <= i + 6


@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_objects_and_regions_are_records(tmp_path: Path, head: str) -> None:
    """What `predict --json` prints of each image."""
    found = saved_dense(head, tmp_path / "m")
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        Image.fromarray(drawn(3, 3, 40, 60)[i].transpose(1, 2, 0)).save(photos / f"{i}.png")
    (photos / "3.png").write_bytes(b"")
    code, out, _ = command("predict", found, photos, "--json", "--threshold", "0.1" if head == "retinanet" else "0.5")
    asking = Asking(0.1 if head == "retinanet" else 0.5)
    finish(job(found, tmp_path / "out", photos, asking=asking))
    good, wrong = rows_of(tmp_path / "out")
    printed = [json.loads(line) for line in out.splitlines()]
    assert [json.loads(str(row["record"])) for row in good] == printed[:3]
    assert [{"path": row["path"], "error": row["error"]} for row in wrong] == printed[3:]
    assert code == 1
    assert manifest(tmp_path / "out")["job"]["threshold"] == asking.threshold


# --- each input once --------------------------------------------------------------------------------------------------


def test_nothing_is_read_twice(model: Path, images: list[Path], tmp_path: Path) -> None:
    finish(job(model, tmp_path / "out", images[0], images[0].parent, f"{images[0].parent}/*", f"{images[0].parent}/../photos"))
    check_answers(tmp_path / "out", model, images, list(map(str, images)))


def test_what_is_missing_or_cut_short_is_an_error_of_its_own(model: Path, images: list[Path], tmp_path: Path) -> None:
    tar, table = write_tar(tmp_path / "a.tar"), write_rows(tmp_path / "a.parquet")
    whole = tar.read_bytes()
    for name, end in (("inside.tar", 2500), ("between.tar", 5 * 1024)):
        (tmp_path / name).write_bytes(whole[:end])
    (tmp_path / "text.tar").write_text("no tar" * 500)
    (tmp_path / "cut.parquet").write_bytes(table.read_bytes()[:1000])
    words = ["inside.tar", "between.tar", "text.tar", "cut.parquet", "nothing.png"]
    (tmp_path / "nothing.png").touch()
    asked = job(model, tmp_path / "out", *(tmp_path / word for word in words))
    next(run_job(asked))
    (tmp_path / "nothing.png").unlink()
    finish(asked)
    good, wrong = rows_of(tmp_path / "out")
    reasons = {Path(str(row["path"])).name: str(row["error"]) for row in wrong}
    assert list(reasons) == words
    assert "cut short after" in reasons["inside.tar"]
    assert "cut short after" in reasons["between.tar"]
    assert reasons["text.tar"].startswith("not a tar")
    assert reasons["cut.parquet"].startswith("not a Parquet file, or it is damaged")
    assert reasons["nothing.png"] == "no such file"
    assert len(good) > 2


def test_words_that_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "00.tar")
    pq.write_table(pq.read_table(write_rows(tmp_path / "a.parquet")).rename_columns(["other"]), tmp_path / "b.parquet")
    pq.write_table(pq.read_table(tmp_path / "a.parquet")[:0], tmp_path / "c.parquet")
    for word, said in (
        (f"{tmp_path}/none.tar", "there is no .*none.tar"),
        (f"{tmp_path}/{{00..02}}.tar", "there is no .*01.tar, and 1 more are not there"),
        (f"{tmp_path}/none.png", "there is no .*none.png"),
        (f"{tmp_path}/none", "there is no .*none"),
        (f"{tmp_path}/*.jpg", "nothing matches"),
        (f"{tmp_path}/empty", "has no image in it"),
        (f"{tmp_path}/c.parquet", "c.parquet has no image in it"),
        (f"{tmp_path}/b.parquet", "b.parquet has no image column: it has other"),
        ("memory://nowhere", "there is no image and no .tar or .parquet file at memory://nowhere"),
        ("http://localhost/*.jpg", "a web server cannot be asked which files it has"),
        ("nope://a/b", "nope:// is not known"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            list_parts([word])


def test_a_passing_trouble_is_no_answer(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the job, which then goes on; only what is gone or damaged stands among the errors."""
    monkeypatch.setattr("metaformer.download.PAUSE", 0)
    files, tries = fsspec.filesystem("memory"), []
    for name, raw in zip("abc", contents(), strict=False):
        files.pipe_file(f"/many/{name}.png", raw)

    def broken(*_: object) -> bytes:
        tries.append(1)
        raise OSError("reset")

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "cat_file", broken)
        with pytest.raises(ConnectionError, match=r"cannot read memory:///many/a\.png: reset"):
            finish(job(model, tmp_path / "out", "memory://many"))
    assert len(tries) > 1
    assert rows_of(tmp_path / "out") == ([], [])
    assert finish(job(model, tmp_path / "out", "memory://many")).images == 3
    files.rm("/many", recursive=True)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_stopped_anywhere_it_goes_on(
    model: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before any file gets its name: the list, an errors' file, a part, the manifest."""
    left, replaced = [at], Path.replace

    def counted(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == -1:
            raise Stopped
        return replaced(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted)
        with suppress(Stopped):
            finish(job(model, tmp_path / "out", images[0].parent))
    finish(job(model, tmp_path / "out", images[0].parent))
    check_answers(tmp_path / "out", model, images, list(map(str, images)))
    assert manifest(tmp_path / "out")["complete"]


def test_killed_it_goes_on_with_what_is_left(model: Path, images: list[Path], tmp_path: Path) -> None:
    asked = job(model, tmp_path / "out", images[0].parent, size=4)
    code = f"""
import time
from metaformer.serve.batch.answers import Labels
from metaformer.serve.batch.job import Job, run_job
from metaformer.serve.batch.work import Work
fit = Labels.fit
Labels.fit = lambda *given: (time.sleep(0.1), fit(*given))[1]
for state in run_job({asked!r}):
    print(len(state.done), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "3\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    assert 3 <= len(before) < 10
    (tmp_path / "out" / ".part-00009.parquet.0123abcd").write_text("half")
    (images[0].parent / "later.png").write_bytes(images[0].read_bytes())  # the list stays what it was
    states = list(run_job(asked))
    (images[0].parent / "later.png").unlink()
    assert len(states[0].done) == len(before)
    assert len(states) == 11 - len(before)
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    assert before.items() <= after.items()
    check_answers(tmp_path / "out", model, images, list(map(str, images)))
    assert not list((tmp_path / "out").glob(".part*"))


def test_an_input_that_can_be_read_after_a_kill_is_no_error_any_more(
    model: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the errors of a part are written, and its answers are not."""
    photos, replaced = tmp_path / "photos", Path.replace
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes(images[0].read_bytes() if i else b"")

    def stopped(self: Path, target: Path) -> Path:
        if target.name == "part-00000.parquet" and target.parent.name == "out":
            raise Stopped
        return replaced(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(Stopped):
            finish(job(model, tmp_path / "out", photos))
    assert [path.name for path in (tmp_path / "out" / "errors").iterdir()] == ["part-00000.parquet"]
    (photos / "0.png").write_bytes(images[0].read_bytes())
    state = finish(job(model, tmp_path / "out", photos))
    assert (state.images, state.errors) == (3, 0)
    good, wrong = rows_of(tmp_path / "out")
    assert ([row["path"] for row in good], wrong) == ([str(photos / f"{i}.png") for i in range(3)], [])


@pytest.mark.parametrize("group", [COUNT, 5])
def test_a_table_that_was_written_anew_is_not_read_for_the_old_one(
    model: Path, images: list[Path], tmp_path: Path, group: int
) -> None:
    """Its rows would be called by the numbers of others: fewer groups than were listed, and shorter ones."""
    table = write_rows(tmp_path / "a.parquet", group=8)
    asked = job(model, tmp_path / "out", table)
    run = run_job(asked)
    assert len(next(run).done) == 0
    next(run)
    run.close()
    write_rows(table, group=group)
    state = finish(asked)
    assert (state.images + state.errors, state.errors) == (8 + 4, 1 + 4)
    assert {str(row["error"]) for row in rows_of(tmp_path / "out")[1][1:]} == {
        "it is not the file that it was when the job was begun: give another --out"
    }


def test_another_job_is_refused(model: Path, images: list[Path], tmp_path: Path) -> None:
    folder, photos = tmp_path / "out", images[0].parent
    asked = job(model, folder, photos)
    finish(asked)
    other = write_model(tmp_path / "m", seed=1)
    for wrong, said in (
        (job(other, folder, photos), "was begun with other weights"),
        (job(model, folder, photos, top=2), "was begun with top=5, and this is top=2: give another --out"),
        (job(model, folder, photos, verb="embed", engine="torch"), "verb=predict, and this is verb=embed"),
        (job(model, folder, images[0]), f"was begun with {photos}, and this is {images[0]}"),
        (job(model, photos, photos), "has other files in it"),
    ):
        with pytest.raises(ValueError, match=said):
            finish(wrong)
    with Folder(str(folder)).held(), pytest.raises(ValueError, match="another job writes into"):
        finish(asked)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged, or of another version"):
        finish(asked)


def test_a_slip_does_not_bind_a_folder(model: Path, images: list[Path], tmp_path: Path) -> None:
    """No part is done, so nothing is lost."""
    folder, photos = tmp_path / "out", images[0].parent
    with pytest.raises(ValueError, match="no engine 'rya'"):
        finish(job(model, folder, images[0], engine="rya"))
    assert (folder / "manifest.json").exists()
    assert finish(job(model, folder, f"{photos}/")).parts == 5
    assert finish(job(model, folder, photos)).parts == 5  # with a slash or without
    told = manifest(folder)
    assert told["job"]["inputs"] == [str(photos)]
    told["job"]["inputs"] = [f"{photos}/"]  # as it was once written
    (folder / "manifest.json").write_text(json.dumps(told))
    assert finish(job(model, folder, photos)).parts == 5


def test_a_slip_takes_nothing_that_was_done(model: Path, images: list[Path], tmp_path: Path) -> None:
    """Errors of a part that was never done are nothing; parts that were moved away were something."""
    folder, photos = tmp_path / "out", images[0].parent
    asked = job(model, folder, photos)
    next(run_job(asked))
    (folder / "errors").mkdir()
    (folder / "errors/part-00000.parquet").write_bytes(b"of a part that was killed")
    changed = job(model, folder, photos, top=2)
    assert finish(changed).parts == 5
    for part in folder.glob("part-*"):
        part.unlink()
    before = sorted(path for path in folder.rglob("*") if path.name != ".lock")
    with pytest.raises(ValueError, match="was begun with top=2, and this is top=5"):
        finish(asked)
    assert sorted(path for path in folder.rglob("*") if path.name != ".lock") == before
    assert finish(changed).images > 0
    elsewhere = job(model, "memory://slip", photos)
    next(run_job(elsewhere))
    with pytest.raises(ValueError, match="was begun with top=5, and this is top=2"):
        finish(job(model, "memory://slip", photos, top=2))
    fsspec.filesystem("memory").rm("/slip", recursive=True)


def test_a_cluster_that_is_not_there_is_said_at_once(
    model: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    asked = ("predict", model, images[0], "--out", tmp_path / "out", "--engine", "ray")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"^no Ray cluster at {address}: Connection refused$"):
            on_ray._check_reached(address)
        code, _, err = command(*asked, "--address", address)
        assert (code, err.splitlines()[-1]) == (2, f"metaformer: no Ray cluster at {address}: Connection refused")
        bound.listen()
        on_ray._check_reached(address)
        on_ray._check_reached("auto")
        on_ray._check_reached("http://nobody:8265")


def test_an_address_that_cannot_be_reached_is_not_called_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec leaves out of a listing what cannot be listed."""

    def away(*_: object, **__: object) -> None:
        raise OSError("no route")

    files = fsspec.filesystem("memory")
    for name in ("ls", "info"):
        monkeypatch.setattr(type(files), name, away)
    for word in ("memory://away", "memory://away/*.jpg"):
        with pytest.raises(ConnectionError, match=r"^cannot reach memory://away.*: no route$"):
            list_parts([word])


def test_a_worker_with_other_weights_says_so(model: Path, images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has other weights here than where the job was begun"):
        finish(job(model, tmp_path / "out", images[0], sha256="0" * 64))


def test_a_part_that_ends_its_worker_again_and_again_is_given_up(model: Path, images: list[Path], tmp_path: Path) -> None:
    asked = job(model, tmp_path / "out", *images)
    next(run_job(asked))
    folder = Folder(asked.place)
    for _ in range(5):
        folder.begin(1)
    folder.begin(0)
    with pytest.raises(ValueError, match=rf"^part 1 ended its worker 5 times, .* from {images[8]} to {images[15]}$"):
        folder.begin(1)
    folder.forget(1)
    folder.begin(1)
    finish(asked)
    assert not (tmp_path / "out" / "tries").exists()


# --- the command line -------------------------------------------------------------------------------------------------


def test_predict_into_a_folder(model: Path, images: list[Path], here: Path) -> None:
    tar = write_tar(here / "a.tar")
    code, out, err = command("predict", model, tar, "--out", "labels", "--engine", "local", "--threads", "1")
    assert (code, out) == (1, "")
    assert err == "40 images, 2 unreadable; written to labels\nwhy: labels/errors\n"
    check_answers(here / "labels", model, images, [f"{tar} {path.name}" for path in images])
    code, _, err = command("predict", model, tar, "--out", "labels", "--threads", "1")
    assert (code, err.splitlines()[0]) == (1, "1 of 1 parts were done; the inputs are those listed then")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.tar"], "a.tar is read by parts: give a folder for these, such as --out labels"),
        (["a.tar", "--out", "a.csv"], "a.tar is read by parts: give a folder"),
        (["a.tar", "--out", "a.xlsx"], "--out a.xlsx does not say a format by its suffix: .jsonl, .csv, .parquet"),
        (["a.tar", "--out", "labels", "--json"], "--json is not what parts are written as: leave it out"),
        (["a.tar", "--out", "labels", "--workers", "2"], "--workers 2 is for a Ray cluster: add --engine ray"),
        (["a.tar", "--engine", "ray"], "--engine ray writes parts: give a folder for them, such as --out labels"),
        (["a.tar", "--engine", "ray", "--out", "a.csv"], "--engine ray writes parts, not a.csv: give a folder"),
        (["a.tar", "--engine", "ray", "--out", "o", "--workers", "0"], "--workers 0 is not at least 1"),
        (["a.tar", "--engine", "ray", "--out", "o", "--gpus", "1.5"], "--gpus 1.5 is for each worker"),
        (["a.tar", "--engine", "ray", "--out", "o", "--address", "ray://h:1"], "--address ray://h:1 is a client's, which Ray"),
        (["a.tar", "--out", "labels", "--engine", "local:nothing"], "no engine 'nothing'"),
    ],
)
def test_slips(model: Path, here: Path, words: list[str], said: str) -> None:
    write_tar(here / "a.tar")
    code, out, err = command("predict", model, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"metaformer: {said}")


@pytest.mark.parametrize("out", ["v.parquet", "v.npy", "v"])
def test_embed(model: Path, images: list[Path], here: Path, out: str) -> None:
    code, _, err = command("embed", model, images[0].parent, "--out", out, "--threads", "1")
    assert (code, f"40 images, 2 unreadable; written to {out}" in err) == (1, True)
    names = [str(path) for i, path in enumerate(images) if i not in DAMAGED]
    if out == "v.npy":
        assert Path("v.txt").read_text().splitlines() == names
        found = np.load(out)
    else:
        table = pq.read_table(out) if out == "v.parquet" else pq.ParquetDataset("v/part-00000.parquet").read()
        assert table["path"].to_pylist() == names
        found = np.stack(table["vector"].to_pylist())
    assert (found.shape, found.dtype if out == "v.npy" else np.float32) == ((38, 16), np.float32)
    predictor = Predictor(model, threads=1)
    expected = Embedder(predictor).embed(np.stack([predictor.fitted(name) for name in names]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in here.iterdir()) == (["v.npy", "v.txt"] if out == "v.npy" else [out])
    for i in DAMAGED if out != "v" else ():
        assert f"{images[i]}: cut off" in err


@pytest.mark.parametrize("out", ["v.parquet", "v.npy"])
def test_embed_where_nothing_can_be_read(model: Path, here: Path, out: str) -> None:
    Path("a.png").write_bytes(b"")
    code, _, err = command("embed", model, "a.png", "--out", out, "--threads", "1")
    assert (code, "1 image, 1 unreadable" in err or "1 images, 1 unreadable" in err) == (1, True)
    assert "a.png: " in err
    assert (len(np.load(out)) if out == "v.npy" else pq.read_table(out).num_rows) == 0


@pytest.mark.parametrize(("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_who_stops_it_is_told_how_to_go_on(
    model: Path,
    images: list[Path],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sent: signal.Signals,
    raised: type[BaseException],
) -> None:
    """A part counts that is there, told or not."""
    do = module.Worker.__call__

    def interrupted(self: module.Worker, part: int) -> Done:
        done = do(self, part)
        if part == 2:
            os.kill(os.getpid(), sent)
        return done

    monkeypatch.setattr(module.Worker, "__call__", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised) as stopped:
        show_job(job(model, here / "out", images[0].parent))
    assert getattr(stopped.value, "code", 143) == 143
    assert capsys.readouterr().err == "3 of 5 parts are done: the same command goes on\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_line_now_and_then_where_no_bar_is_shown(
    model: Path, images: list[Path], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "SELDOM", 0.0)
    show_job(job(model, here / "out", images[0].parent, size=20))
    assert capsys.readouterr().err.splitlines()[:2] == ["1 of 2 parts are done, 20 images", "2 of 2 parts are done, 40 images"]


def test_embed_takes_no_exported_file(here: Path) -> None:
    Path("bugs.onnx").write_bytes(b"")
    code, _, err = command("embed", "bugs.onnx", "photos", "--out", "v")
    assert code == 2
    assert "an exported file holds no features: give the run that it was exported from" in " ".join(err.split())
    assert not Path("v").exists()


def test_embed_says_what_it_cannot(model: Path, here: Path) -> None:
    for words, said in (
        (["--out", "v", "--engine", "openvino"], "--engine openvino is neither local nor ray: vectors come from torch"),
        (["--out", "no/v.npy"], "there is no folder no to write v.npy into"),
        (["--out", "v.csv"], "--out v.csv is neither .parquet nor .npy, nor a folder of parts such as v"),
    ):
        code, _, err = command("embed", model, "photos", *words)
        assert code == 2
        assert err.startswith(f"metaformer: {said}")
