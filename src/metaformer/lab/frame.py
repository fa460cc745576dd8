"""Self-contained pages of HTML, which all look alike: frame.html has the head and the style, each page its own body."""

from collections.abc import Callable, Mapping
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template


def template(name: str, filters: Mapping[str, Callable[..., str]]) -> Template:
    """A template that lies here, such as `page.html`; what it names has to be given."""
    room = files("metaformer.lab")
    loader = FunctionLoader(lambda file: room.joinpath(file).read_text(encoding="utf-8"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)
    environment.filters |= filters
    return environment.get_template(name)
