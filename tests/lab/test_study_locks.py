"""Which rows are being trained: each by one process, and by none that is dead."""

from multiprocessing import get_context
from pathlib import Path

from metaformer.lab.study_locks import Locks


def test_a_row_is_one_process_s(tmp_path: Path) -> None:
    one, other = Locks(tmp_path), Locks(tmp_path)
    assert one.take("a")
    assert other.take("b")
    assert (other.take("a"), one.take("b")) == (False, False)
    one.leave("a")
    assert other.take("a")
    other.leave_all()
    assert (one.take("a"), one.take("b")) == (True, True)
    one.leave_all()


def test_a_process_that_was_killed_has_no_row(tmp_path: Path) -> None:
    def die() -> None:
        import os
        import signal

        assert Locks(tmp_path).take("a")
        os.kill(os.getpid(), signal.SIGKILL)

    child = get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert child.exitcode == -9
    assert Locks(tmp_path).take("a")


def test_folders_of_studies_do_not_know_each_other(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        assert Locks(tmp_path / name).take("a")
