"""A browser on the service's page, with a pool without models behind it. Skips where there is none."""

import base64
import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from tests.serve.fake import FakePool

from metaformer.serve.app import Service
from metaformer.serve.logs import Log

CHROMIUM = shutil.which("chromium")
PAGE = Path(__file__).parents[2] / "src" / "metaformer" / "serve" / "page"

GIVE = """([files, kind]) => {
    const carried = new DataTransfer();
    for (const [name, type, text] of files) {
        const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
        carried.items.add(new File([bytes], name, { type }));
    }
    const how = kind === "paste" ? { clipboardData: carried } : { dataTransfer: carried };
    const made = new (kind === "paste" ? ClipboardEvent : DragEvent)(kind, { ...how, bubbles: true, cancelable: true });
    document.querySelector("footer").dispatchEvent(made);
}"""


@dataclass
class Front:
    """A service in this process: its address, and its pool to be made slow or full."""

    address: str
    pool: FakePool


@contextmanager
def serving(*, keys: tuple[str, ...] = (), start: float = 0.0) -> Iterator[Front]:
    """In a thread of its own."""
    pool = FakePool(start=start)
    service = Service(pool, keys=keys, log=Log(io.StringIO()))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            service, lifespan="on", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        until(lambda: server.started)
        try:
            yield Front(f"http://127.0.0.1:{bound.getsockname()[1]}/", pool)
        finally:
            server.should_exit = True
            thread.join()


def until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something in this process."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class View:
    """A page, what its console said and what it asked for."""

    page: Any
    front: Front
    said: list[str]
    asked: list[str]

    def give(self, files: dict[str, bytes], how: str = "drop") -> None:
        """Drops or pastes files."""
        kinds = {"jpg": "image/jpeg", "png": "image/png", "heic": "image/heic"}
        sent = [[name, kinds.get(name.rpartition(".")[2], ""), base64.b64encode(data).decode()] for name, data in files.items()]
        self.page.evaluate(GIVE, [sent, how])

    def see(self, selector: str, count: int | None = None) -> Any:
        """What a selector finds, once it is there; and so many of it."""
        found = self.page.locator(selector)
        if count is None:
            found.first.wait_for()
        else:
            until_page(self.page, lambda: found.count() == count)
        return found

    def slider(self, name: str) -> Any:
        """One beside an image that is shown in full."""
        return self.page.locator("#panels").get_by_role("slider", name=name, exact=True)

    def texts(self, selector: str) -> list[str]:
        """What it finds, as text."""
        return [" ".join(text.split()) for text in self.page.locator(selector).all_inner_texts()]

    def pixel(self, u: float, v: float) -> tuple[int, int, int]:
        """The colour of the shown canvas at a place in parts of it, after it was drawn."""
        self.page.wait_for_timeout(120)
        script = """(canvas, [u, v]) => {
            const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
            pen.drawImage(canvas, 0, 0);
            return [...pen.getImageData(Math.floor(u * canvas.width), Math.floor(v * canvas.height), 1, 1).data].slice(0, 3);
        }"""
        red, green, blue = self.page.locator(".stage canvas").first.evaluate(script, [u, v])
        return red, green, blue


def until_page(page: Any, happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for something on a page."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen on the page"
        page.wait_for_timeout(30)


@contextmanager
def viewing(browser: Any, front: Front, *, width: int = 1280, scheme: str = "light", allowed: str = "") -> Iterator[View]:
    """The page of a service, opened. When it is left nothing may have gone wrong in it but what contains `allowed`."""
    phone = width < 500
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, has_touch=phone, is_mobile=phone, accept_downloads=True
    )
    page = context.new_page()
    view = View(page, front, [], [])
    page.on("console", lambda message: view.said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: view.said.append(str(error)))
    page.on("request", lambda request: view.asked.append(request.url))
    page.goto(front.address)
    yield view
    context.close()
    assert [text for text in view.said if not (allowed and allowed in text)] == []
    assert [url for url in view.asked if not url.startswith((front.address, "blob:"))] == []


def picture(size: tuple[int, int] = (200, 100), shade: int = 90, kind: str = "jpeg", rotated: bool = False) -> bytes:
    """The bytes of an image; `rotated` by a mark in it, as phones do."""
    file = io.BytesIO()
    exif = Image.Exif()
    if rotated:
        exif[0x0112] = 6
    Image.new("RGB", size, (shade % 256, 120, 200)).save(file, kind, exif=exif)
    return file.getvalue()
