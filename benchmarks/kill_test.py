"""A run that is killed again and again must end as one that nobody touched, bit by bit: weights, metrics, all that is saved.

python benchmarks/kill_test.py --kills 20 [--devices 2]
A third of the kills are SIGTERM, which saves first, a third SIGKILL at any moment, a third SIGKILL while a checkpoint is
being written. Of several processes SIGKILL is the first one's, which ends all; their weights may differ by 1e-6. Printed is a
JSON record; the exit code is 1 where more differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors.torch import load_file

from metaformer.runs import Run, is_run

SETTINGS = [
    "image_size=8", "batch=32", "precision=fp32", "ema=0.9", "drop_path=0.2", "mixup=0.2", "erase=0.2", "device=cpu",
    "model.dims=(16, 16, 32, 32)", "model.depths=(1, 1, 1, 1)", "save_minutes=0.001",
]  # fmt: skip
KINDS = ("any moment", "while writing", "SIGTERM")
CLOCKS = ("seconds", "images_per_second")
CLOSE = 1e-6
"""‖Δw‖ / ‖w‖ that is no difference where several processes train: three or more sum in another order each time."""


def start(path: Path, data: str, epochs: int, devices: int) -> subprocess.Popen[bytes]:
    """The command that a person would type, at first and to go on."""
    if is_run(path):
        arguments = [str(path)]
    else:
        shutil.rmtree(path, ignore_errors=True)  # killed before it was a run
        arguments = ["caformer_t6", f"data={data}", f"epochs={epochs}", f"root={path.parent}", f"name={path.name}", *SETTINGS]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with path.with_name(f"{path.name}.txt").open("ab") as said:
        command = [sys.executable, "-m", "metaformer", "train", *arguments, *([f"devices={devices}"] if devices > 1 else [])]
        return subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)


def kill(process: subprocess.Popen[bytes], path: Path, kind: str, delay: float, devices: int) -> str | None:
    """Waits until it trains, then for the moment; which kind of kill it was, or None where the run was quicker."""
    log, new = path / "log.txt", path / "last.new"
    before, left = log.stat().st_size if log.exists() else 0, stamp(new)
    while process.poll() is None and not (log.exists() and log.stat().st_size > before):
        time.sleep(0.005)
    time.sleep(delay)
    if kind == "while writing":
        while process.poll() is None and stamp(new) in (None, left):
            time.sleep(0.0002)
    if process.poll() is None and kind == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    elif process.poll() is None:  # of several it is the first one that trains and writes
        with suppress(ProcessLookupError):
            os.kill(json.loads((path / "trainer.json").read_text())["pid"], signal.SIGKILL)
    code = process.wait()
    if code == 0:
        return None
    expected = 128 + signal.SIGTERM if kind == "SIGTERM" else -signal.SIGKILL
    if code != expected and (devices == 1 or kind == "SIGTERM"):
        raise RuntimeError(f"it ended with {code}, not {expected}: see {path.with_name(f'{path.name}.txt')}")
    if kind != "SIGTERM":
        return "any moment" if stamp(new) in (None, left) else "while writing"
    return kind


def stamp(folder: Path) -> int | None:
    """When something was last put into a folder, or None where there is none: a kill leaves what was being written."""
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def differences(run: Run, whole: Run) -> list[str]:
    """What of two runs is not the same, but for what a clock says."""
    lines = [[{key: value for key, value in line.items() if key not in CLOCKS} for line in r.metrics] for r in (run, whole)]
    files = ("best/model.safetensors", "best/model.json", "last/model.safetensors", "last/model.json")
    found = [name for name in files if (run.path / name).read_bytes() != (whole.path / name).read_bytes()]
    kept = [torch.load(r.last / "training.pt", weights_only=True) for r in (run, whole)]
    for state in kept:
        del state["progress"]["seconds"]
    return found + ["metrics.jsonl"] * (lines[0] != lines[1]) + ["last/training.pt"] * (not same(*kept))


def distance(run: Run, whole: Run) -> float:
    """‖Δw‖ / ‖w‖ of the last weights of two runs."""
    one, other = (load_file(r.last / "model.safetensors") for r in (run, whole))
    off = sum((one[key].double() - other[key].double()).square().sum().item() for key in other)
    return (off / sum(tensor.double().square().sum().item() for tensor in other.values())) ** 0.5


def same(one: object, other: object) -> bool:
    """Whether nested values are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def main() -> None:
    """Prints a JSON record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, help="by default enough for that many kills")
    parser.add_argument("--most", type=float, default=0.8, help="seconds of training until a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=1, help="processes that train together")
    args = parser.parse_args()
    epochs, draw = args.epochs or 10 + 3 * args.kills, random.Random(args.seed)
    began, kills = time.perf_counter(), dict.fromkeys(KINDS, 0)
    with tempfile.TemporaryDirectory() as folder:
        run, whole = Run(Path(folder) / "run"), Run(Path(folder) / "whole")
        for number in range(args.kills):
            process = start(run.path, args.data, epochs, args.devices)
            done = kill(process, run.path, KINDS[number % 3], draw.uniform(0, args.most), args.devices)
            if done is not None:
                kills[done] += 1
        ends = [start(r.path, args.data, epochs, args.devices).wait() for r in (run, whole)]
        if any(ends):
            sys.exit("\n".join((Path(folder) / name).read_text()[-2000:] for name in ("run.txt", "whole.txt")))
        went_on = (run.path / "log.txt").read_text().count("going on at epoch")
        record = {
            "kills": kills,
            "went_on_from_a_save": went_on,
            "differences": differences(run, whole),
            "distance": distance(run, whole),
            "epochs": len(run.metrics),
            "seconds": round(time.perf_counter() - began, 1),
            "torch": torch.__version__,
        }
    print(json.dumps(record, indent=2))
    sys.exit(1 if record["distance"] > CLOSE or (args.devices == 1 and record["differences"]) else 0)


if __name__ == "__main__":
    main()
