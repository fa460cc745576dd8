"""Sphinx's settings for the site; `docs/site/build.py` gathers its pages and starts it."""

import builtins

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import metaformer

project = "metaformer"
release = metaformer.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]  # blocks within blocks, as methods in classes
smartquotes = False  # -- begins an option
myst_heading_anchors = 4  # links may name a heading, as they do where Markdown is shown elsewhere
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"metaformer {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_logo = "static/logo.svg"
html_favicon = "static/logo.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_last_updated_fmt = None
COLOURED = ("brand-primary", "brand-content", "brand-visited", "api-name", "api-pre-name")
html_theme_options = {
    f"{mode}_css_variables": {f"color-{what}": colour for what in COLOURED}
    for mode, colour in (("light", "#0b6e5f"), ("dark", "#5fd0bb"))
}


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("doctree-read", unlinked)


def unlinked(app: Sphinx, page: nodes.document) -> None:
    """Leaves `bytes` in a signature a word, which else would link to whatever attribute has that name."""
    for link in list(page.findall(pending_xref)):
        if link["refdomain"] == "py" and link["reftarget"] in vars(builtins):
            link.replace_self(link.children)
