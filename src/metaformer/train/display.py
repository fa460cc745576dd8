"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere, and the same in log.txt."""

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Use as a context manager. `step` moves the live bar; `say` writes a line that stays, in `log` too where there is one."""

    def __init__(self, log: Path | None, total_steps: int, done: int, *, quiet: bool = False, window: float = 30) -> None:
        """What is left is told by the steps of the last `window` seconds."""
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.log = log
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
            speed_estimate_period=window,
        )
        self.task = self.bar.add_task("starting", total=total_steps, completed=done, facts="")
        self.live = not self.bar.disable
        self.shown = 0.0 if self.live else time.monotonic()

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def due(self) -> bool:
        """Whether new facts are wanted: ten times a second at most, once a minute where there is no terminal, because to
        know the loss is to wait for the device."""
        return time.monotonic() - self.shown > (0.1 if self.live else 60)

    def step(self, done: int, name: str, facts: str) -> None:
        self.shown = time.monotonic()
        if self.live:
            self.bar.update(self.task, completed=done, description=name, facts=facts)
        else:
            self.say(f"{name}  {facts}")

    def plan(self, total_steps: int) -> None:
        """The run has so many steps from now on."""
        self.bar.update(self.task, total=total_steps)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)
        if self.log is None:
            return
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def say(line: str, *, quiet: bool = False) -> None:
    """A line outside of any run."""
    Console(quiet=quiet, highlight=False, soft_wrap=True).print(line, markup=False)


class Watch:
    """Told how far something is, it shows that on a terminal, at most ten times a second."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.console.is_terminal or (done < total and time.monotonic() - self.shown < 0.1):
            return
        self.shown = time.monotonic()
        self.console.print(f"\r{what} {done:,}/{total:,}", end="\n" if done >= total else "", markup=False)
