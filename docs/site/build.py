"""Builds the documentation: gathers the pages, writes the references from the code, and has Sphinx make HTML of it.

python docs/site/build.py [FOLDER], by default build/site; any warning is an error.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from commands import commands_page
from reference import reference_pages, settings_page
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

NAVIGATION = {
    "First steps": "start train finetune detect segment fast mixer study claims",
    "Training": "data recipes tune runs saves many dense",
    "Looking closer": "eval explain inspect bench",
    "Putting it to work": "weights hub export quantize serve batch containers",
    "Reference": "commands settings reference",
    "The project": "results LOG contributing changelog",
}
"""Pages by heading, in order. One that is not there yet is passed over; one that is not named here comes last under REST."""
REST = "Putting it to work"
TITLES = {
    "detect": "Detect", "segment": "Segment", "mixer": "Write a mixer", "study": "Repeat the papers",
    "runs": "Compare runs", "saves": "Stop and go on", "dense": "Objects and regions", "hub": "Published weights",
    "claims": "The claims, checked", "export": "Export", "LOG": "Diary",
}  # fmt: skip
"""What the navigation calls a page whose own title is too long for it."""
FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def sources() -> dict[str, Path]:
    """Each page that somebody wrote: its name on the site and its file."""
    root = {"index": ROOT / "README.md", "contributing": ROOT / "CONTRIBUTING.md", "changelog": ROOT / "CHANGELOG.md"}
    return root | {page.stem: page for page in sorted((ROOT / "docs").glob("*.md"))}


def navigation(there: set[str]) -> dict[str, list[str]]:
    """The pages of each heading that are there, and all that are."""
    named = {heading: pages.split() for heading, pages in NAVIGATION.items()}
    known = {page for pages in named.values() for page in pages} | {"index"}
    named[REST] += sorted(there - known)
    return {heading: [page for page in pages if page in there] for heading, pages in named.items()}


def linked(page: Path, pages: Path) -> str:
    """The text of a page whose links lead to the same things on the site.

    A file that is no page is copied there; what leads to a folder is no link.
    """
    names = {file: f"{name}.md" for name, file in sources().items()}

    def link(match: re.Match[str]) -> str:
        said, (path, hash_, anchor) = match[1], match[2].partition("#")
        file = (page.parent / path).resolve()
        if "://" in path or not path or not file.exists():
            return match[0]
        if file.is_dir():
            return said
        name = names.get(file)
        if name is None:
            name = str(file.relative_to(ROOT / "docs" if file.is_relative_to(ROOT / "docs") else ROOT))
            (pages / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, pages / name)
        elif said.endswith(".md"):
            said = ""  # Sphinx puts the page's title there
        return f"[{said}]({name}{hash_}{anchor})"

    parts = FENCED.split(page.read_text())
    return "".join(part if part.startswith("```") else re.sub(r"\[([^]]*)\]\(([^)\s]+)\)", link, part) for part in parts)


def gather(pages: Path) -> None:
    """Writes all that Sphinx reads into the folder `pages`, which is made anew."""
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    texts = {name: linked(page, pages) for name, page in sources().items()}
    api = reference_pages()
    order = [page for group in navigation(set(texts)).values() for page in group]
    texts["commands"] = commands_page(["\n".join(FENCED.findall(texts[name])) for name in ["index", *order]])
    texts["settings"] = settings_page()
    for heading, names in navigation({*texts, "reference"}).items():
        entries = "\n".join(f"{TITLES[name]} <{name}>" if name in TITLES else name for name in names)
        texts["index"] += f"\n```{{toctree}}\n:caption: {heading}\n:hidden:\n\n{entries}\n```\n"
    for name, text in (texts | api).items():
        (pages / f"{name}.md").write_text(text)


def main(words: list[str]) -> int:
    """Exit code: 0 if there was nothing to warn of."""
    out = Path(words[0] if words else ROOT / "build" / "site").resolve()
    pages = out.with_name(f"{out.name}-pages")
    gather(pages)
    shutil.rmtree(out, ignore_errors=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # the same pages give the same bytes
    strict = ["-q", "-E", "-W", "--keep-going"]
    return build_main([*strict, "-b", "html", "-c", str(HERE), "-d", f"{pages}/.doctrees", str(pages), str(out)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
