"""How long the service's page takes from a photograph that is dropped on it to the first bar of an answer.

python benchmarks/page.py runs/first --rounds 15 --out page.json
A photograph of 12 megapixels is made here; `metaformer serve MODEL` is started, and its page opened in Chromium without a
window. The clock runs in the page, from the event of the drop to the frame after the one in which the first bar stands: the
photograph is decoded, scaled down, sent, decoded again, answered and drawn. Each round has a page and a photograph of its own.
"""

import argparse
import base64
import io
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

GOAL = 1.5
"""Seconds."""
TIMED = """(text) => new Promise((resolve, reject) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
    setTimeout(() => reject(new Error("there was no answer in a minute")), 60000);
    new MutationObserver(() => {
        if (!document.querySelector(".bars .fill")) return;
        requestAnimationFrame(() => requestAnimationFrame(() => resolve((performance.now() - start) / 1000)));
    }).observe(document.body, { childList: true, subtree: true });
    const start = performance.now();
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
})"""


def photograph(seed: int, width: int = 4000, height: int = 3000) -> bytes:
    """A JPEG of some megabytes: soft colours with grain, as a camera's, and not twice the same."""
    draw = np.random.default_rng(seed)
    soft = Image.fromarray(draw.integers(0, 256, (9, 12, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = draw.normal(0, 5, (height // 2, width // 2, 3)).repeat(2, 0).repeat(2, 1)
    file = io.BytesIO()
    pixels = (np.asarray(soft, np.float32) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "jpeg", quality=90)
    return file.getvalue()


@contextmanager
def service(model: str) -> Iterator[str]:
    """The address of `metaformer serve MODEL`, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "metaformer", "serve", model, "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()


def until_ready(address: str, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Returns when the service answers. Raises SystemExit when it ends or takes too long."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("the service does not start: try the same `metaformer serve` by hand")


def timed(browser: Any, address: str, photo: bytes) -> float:
    """Seconds from the drop to the first bar, on a page that was opened for it."""
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto(address)
    page.wait_for_selector(".sample:enabled")
    seconds: float = page.evaluate(TIMED, base64.b64encode(photo).decode())
    page.close()
    return seconds


def main() -> None:
    """Prints a line, and writes the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a classifier, as `metaformer serve` takes it")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("page.json"))
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no chromium: install it, as with `apt-get install chromium`")
    with service(args.model) as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        photos = [photograph(seed) for seed in range(args.rounds)]
        seconds = [timed(browser, address, photo) for photo in photos]
        version = browser.version
        browser.close()
    ordered = sorted(seconds)
    found = {
        "model": args.model, "chromium": version, "megapixels": 12, "megabytes": round(len(photos[0]) / 1e6, 1), "goal": GOAL,
        "median": statistics.median(seconds), "least": ordered[0], "most": ordered[-1], "first": seconds[0], "seconds": seconds,
    }  # fmt: skip
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"{found['median']:.2f} s from drop to bars (median of {args.rounds}; {ordered[0]:.2f} to {ordered[-1]:.2f}, "
        f"the first {seconds[0]:.2f}), {found['megabytes']} MB of 12 megapixels; the goal is {GOAL} s"
    )


if __name__ == "__main__":
    main()
