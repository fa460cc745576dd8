"""The site: built without warnings, whole, no link into the void, nothing from elsewhere, no wider than a phone."""

import ast
import functools
import html
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

import metaformer
from metaformer.cli import app
from metaformer.config import KEYS

pytest.importorskip("sphinx", reason="the extra docs is not installed")
ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")


@dataclass
class Page(HTMLParser):
    """What a page links to, loads and can be linked by, and its text."""

    file: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text())
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif tag in ("script", "img", "iframe", "source"):
            self.loads += [found["src"]] if found.get("src") else []
        elif tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("href") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built anew; a warning is an error."""
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "docs/site/build.py", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html")) if "_static" not in file.parts}


def test_navigation_passes_over_pages_that_are_not_there_and_finds_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    script = runpy.run_path(str(ROOT / "docs" / "site" / "build.py"))
    found = script["navigation"]({"index", "train", "start", "data", "unheard", "settings"})
    assert (found["First steps"], found["Training"]) == (["start", "train"], ["data"])
    assert found[script["REST"]] == ["unheard"]
    assert sorted(page for pages in found.values() for page in pages) == ["data", "settings", "start", "train", "unheard"]


def test_every_page_that_is_written_is_there(pages: dict[Path, Page], site: Path) -> None:
    written = {page.stem for page in (ROOT / "docs").glob("*.md")} | {"index", "contributing", "changelog"}
    index = pages[site / "index.html"]
    assert {name for name in written if site / f"{name}.html" not in pages} == set()
    assert {name for name in written if f"{name}.html" not in index.links} - {"index"} == set()


def test_links_and_anchors_lead_somewhere(pages: dict[Path, Page]) -> None:
    lost = []
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            path, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:", path):
                continue
            there = (file.parent / path.partition("?")[0]).resolve() if path else file
            if not there.exists() or (anchor and there in pages and anchor not in pages[there].anchors):
                lost.append((file.name, link))
    assert sum(len(page.links) for page in pages.values()) > 1000
    assert lost == []


def test_every_link_of_a_sentence_says_something(pages: dict[Path, Page]) -> None:
    """What is in brackets alone, as pages are, is not gone."""
    said = {file.name: re.findall(r"<p>(.*?)</p>", file.read_text(), re.DOTALL) for file in pages}
    bare = {
        name: [re.sub(r"<[^>]*>", "", re.sub(r"<code.*?</code>", "code", text)) for text in texts]
        for name, texts in said.items()
    }
    assert [(name, text) for name, texts in bare.items() for text in texts if re.search(r"\(\s*\)", text)] == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    assert [link for page in pages.values() for link in page.loads if "//" in link] == []
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", styles) == []


def test_every_command_is_in_the_reference(site: Path) -> None:
    """With each of its options, and an example that it can read."""
    _, *parts = re.split(r'<section id="metaformer-([\w-]+)">', (site / "commands.html").read_text())
    sections = {name: html.unescape(re.sub(r"<[^>]*>", "", text)) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    verbs = dict(walk(typer.main.get_command(app), ""))
    assert len(verbs) >= 20
    assert [verb.replace(" ", "-") for verb in verbs] == list(sections)
    for verb, command in verbs.items():
        section = sections[verb.replace(" ", "-")]
        options = [param.opts[0] for param in command.params if param.opts[0].startswith("--")]
        assert [option for option in options if not re.search(rf"{option}\b", section)] == []
        line = re.findall(rf"An example:\s*metaformer {verb}(.*)", section)[0]
        command.make_context(verb, shlex.split(line))


def walk(group: typer.core.TyperGroup, before: str) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from walk(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_every_public_name_is_in_the_reference_with_its_docstring(pages: dict[Path, Page], site: Path) -> None:
    """Word for word; the marks of Markdown aside."""
    index = pages[site / "reference.html"]
    every = {anchor: page for page in pages.values() for anchor in page.anchors if anchor.startswith("metaformer.")}
    for name in metaformer.__all__[1:]:
        assert f"metaformer.{name}" in every, name
        assert re.search(rf"\b{name}\b", index.text)
        said = re.sub(r"\s+", " ", getattr(metaformer, name).__doc__.replace("`", ""))
        shown = re.sub(r"\s+", " ", every[f"metaformer.{name}"].text)
        assert letters(said) in letters(shown), name
    assert "metaformer.Predictor.stream" in every
    assert "metaformer.Count.macs" in every


def letters(text: str) -> str:
    """Letters and digits, for typography changes quotes and dashes."""
    return re.sub(r"[\W_]", "", text)


def test_every_setting_is_listed(pages: dict[Path, Page], site: Path) -> None:
    text = pages[site / "settings.html"].text
    assert [key for key in KEYS if not re.search(rf"\b{key}\b", text)] == []
    source = ast.parse((ROOT / "src/metaformer/config.py").read_text())
    recipe = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Recipe")
    texts = [node.value for node in recipe.body[1:] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    said = [str(text.value) for text in texts]
    assert len(said) >= 50
    assert [one for one in said if letters(one) not in letters(text)] == []


class Quiet(SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_in_a_browser(width: int, scheme: str, pages: dict[Path, Page], site: Path, address: str) -> None:
    """Nothing to scroll sideways, no picture missing, no error in the console, nothing asked of another host; search finds."""
    playwright = pytest.importorskip("playwright.sync_api")
    said, asked, wide, blind = list[str](), set[str](), dict[str, int](), list[str]()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        view.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("request", lambda request: asked.add(request.url))
        for name in sorted(str(page.relative_to(site)) for page in pages):
            view.goto(address + name)
            wide[name] = view.evaluate("document.documentElement.scrollWidth")
            blind += view.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)")
        view.goto(f"{address}search.html?q=mixer")
        view.wait_for_selector("#search-results li a")
        found = view.eval_on_selector_all("#search-results li a", "links => links.map(link => link.pathname)")
        browser.close()
    assert {name: pixels for name, pixels in wide.items() if pixels > width} == {}
    assert blind == []
    assert "/mixer.html" in found
    assert said == []
    assert {url for url in asked if not url.startswith((address, "data:"))} == set()
