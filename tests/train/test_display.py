"""What a person sees: a live line in a terminal, plain lines elsewhere, the same in log.txt."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from metaformer.train import display
from metaformer.train.display import Display, say


def test_lines_stay_and_are_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "[not markup] " + "x" * 300
    with Display(tmp_path / "log.txt", 10, 0) as shown:
        shown.say("one")
        shown.say(long)
        assert not shown.due()  # no terminal, no live line
    assert capsys.readouterr().out == f"one\n{long}\n"
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[20:] for line in lines] == ["one", long]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)


def test_without_a_terminal_a_line_a_minute_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    with Display(tmp_path / "log.txt", 10, 0) as shown:
        now += 59
        assert not shown.due()
        now += 2
        assert shown.due()
        shown.step(5, "epoch 1/2", "loss 1.234")
        assert not shown.due()
    assert capsys.readouterr().out == "epoch 1/2  loss 1.234\n"


def test_quiet_is_logged_and_not_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Display(tmp_path / "log.txt", 10, 0, quiet=True) as shown:
        shown.say("one")
    say("two", quiet=True)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "log.txt").read_text().endswith(" one\n")
    say("three")
    assert capsys.readouterr().out == "three\n"


def test_a_terminal_has_a_live_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(display, "Console", lambda **_: terminal)
    with Display(tmp_path / "log.txt", 10, 4) as shown:
        assert shown.due()
        shown.step(5, "epoch 1/2", "loss 1.234")
        assert not shown.due()  # ten times a second at most
        shown.bar.refresh()
    assert "epoch 1/2" in screen.getvalue()
    assert "loss 1.234" in screen.getvalue()
    assert shown.bar.tasks[0].completed == 5


@pytest.mark.parametrize(("window", "left"), [(30, None), (3600, 300)])
def test_what_is_left_is_told_by_steps_that_are_minutes_apart(
    window: float, left: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, clock = Console(file=io.StringIO(), force_terminal=True, width=120), [0.0]
    monkeypatch.setattr(display, "Console", lambda **_: terminal)
    with Display(None, 10, 0, window=window) as shown:
        shown.bar.get_time = lambda: clock[0]
        for step in range(1, 6):
            clock[0] += 60
            shown.step(step, "row", "")
        assert shown.bar.tasks[0].time_remaining == left
