"""Models to and from Hugging Face: a folder or repository → a model; a run → a repository with its model card."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metaformer.config import read_json
from metaformer.download import PassingError, retried
from metaformer.weights.fetch import endpoint, fetch_hub, hub_errors
from metaformer.weights.pretrained import Model, read_pretrained

HUB = "hf:"
"""What a repository's name begins with where a path could be meant."""
PICTURES = ("curves.png", "confusion.png", "predictions.png")
NAME = re.compile(r"[\w.-]+/[\w.-]+")

CARD = """\
---
library_name: metaformer
pipeline_tag: image-classification
tags:
- image-classification
- metaformer
{%- if licence %}
license: {{ licence | lower }}
{%- endif %}
{%- if top1 is not none and data %}
model-index:
- name: {{ name | tojson }}
  results:
  - task:
      type: image-classification
    dataset:
      name: {{ data | tojson }}
      type: {{ data | tojson }}
    metrics:
    - type: accuracy
      value: {{ "%.2f" | format(top1) }}
{%- endif %}
---

# {{ name }}

{% if recipe -%}
A {{ recipe.model }} trained with [metaformer](https://pypi.org/project/metaformer/) on `{{ data }}`
{%- else -%}
An image classifier, made with [metaformer](https://pypi.org/project/metaformer/)
{%- endif -%}
{%- if classes %}: {{ classes | length }} classes{% endif -%}
{%- if preprocess %}, {{ preprocess.size }} × {{ preprocess.size }} pixels{% endif %}.

```python
import metaformer

predictor = metaformer.Predictor("hf:{{ repo }}")
print(predictor(["photo.jpg"])[0].top)
```
{% if figures.map is defined %}
## Figures

On {{ figures.images }} held-out images, of which each may have several labels:

| figure | value |
|---|---:|
| mAP | {{ "%.2f" | format(figures.map) }} % |
{%- for name, key in (("micro F1", "micro_f1"), ("macro F1", "macro_f1")) if figures[key] is not none %}
| {{ name }} at 0.5 | {{ "%.4f" | format(figures[key]) }} |
{%- endfor %}
| loss | {{ "%.4f" | format(figures.loss) }} |
{% elif figures %}
## Figures

On {{ figures.images }} held-out images:

| figure | value |
|---|---:|
| top-1 | {{ "%.2f" | format(figures.top1) }} % |
| its 95 % interval | {{ "%.2f" | format(figures.top1_interval[0]) }} to {{ "%.2f" | format(figures.top1_interval[1]) }} % |
{%- if figures.top5 is not none %}
| top-5 | {{ "%.2f" | format(figures.top5) }} % |
{%- endif %}
| loss | {{ "%.4f" | format(figures.loss) }} |
| calibration error (ECE) | {{ "%.4f" | format(figures.ece) }} |
{% elif top1 is not none %}
Top-1 {{ "%.2f" | format(top1) }} %.
{% endif -%}
{% for picture in pictures %}
![{{ picture }}]({{ picture }})
{% endfor -%}
{% if recipe %}
## Recipe

`metaformer train recipe.json` repeats the run where the data is.

| setting | value |
|---|---|
{%- for key, value in recipe.items() if value is not none and value != {} %}
| {{ key }} | {{ value }} |
{%- endfor %}
{% endif -%}
{% if classes %}
## Classes

{{ classes[:100] | join(", ") }}{% if classes | length > 100 %} … ({{ classes | length }} in all, in model.json){% endif %}
{% endif -%}
"""


def from_pretrained(source: str | Path, model: Model | None = None, *, quiet: bool = False) -> Model:
    """The model in a folder that `save_pretrained` wrote, in a .safetensors of `export`, in a run (its best weights), or in a
    repository USER/NAME.

    Give the `model` where it has mixers of your own: a file cannot bring back code. Raises FileNotFoundError, or ValueError
    or OSError with a sentence.
    """
    place, repo = Path(source).expanduser(), str(source).removeprefix(HUB)
    if place.is_file():
        folder = place
    elif place.is_dir():
        folder = _weights_in(place)
    elif NAME.fullmatch(repo):
        folder = fetch_pretrained(repo, quiet=quiet)
    else:
        raise FileNotFoundError(f"no folder {source}; a repository of Hugging Face is USER/NAME")
    return read_pretrained(folder, model)[0]


def fetch_pretrained(repo: str, *, quiet: bool = False) -> Path:
    """A folder with model.json and model.safetensors of one commit of a repository, `USER/NAME` or `hf:USER/NAME`."""
    repo = repo.removeprefix(HUB)
    folder = fetch_hub(repo, "model.json", quiet=quiet).parent
    fetch_hub(repo, "model.safetensors", revision=folder.name, quiet=quiet)
    return folder


def push_to_hub(
    source: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    licence: str | None = None,
    message: str = "Upload model",
    quiet: bool = False,
) -> str:
    """Uploads a run's best weights, or a folder that `save_pretrained` wrote, with a model card; returns the address.

    The repository is made if it is not there. Of a run, its recipe, figures and pictures go along; no image of the data
    but those on its pictures. `licence` is Hugging Face's name of one, such as apache-2.0. All is one commit. Log in
    first: `hf auth login`, or $HF_TOKEN. Raises FileNotFoundError, or ValueError or OSError with a sentence.
    """
    from huggingface_hub import HfApi

    place = Path(source).expanduser()
    weights = _weights_in(place)
    api = HfApi(endpoint=endpoint(), library_name="metaformer")
    with tempfile.TemporaryDirectory() as made:
        _gather(place, weights, Path(made), repo_id, licence)

        def push() -> None:
            try:
                with hub_errors(repo_id), _bars(shown=sys.stderr.isatty() and not quiet):
                    api.create_repo(repo_id, private=private, exist_ok=True)
                    api.upload_folder(repo_id=repo_id, folder_path=made, commit_message=message)
            except RuntimeError as error:  # what the client makes of anything that goes wrong with a large file
                raise PassingError(f"{error.__cause__ or error}".splitlines()[0]) from error

        retried(push, f"push to {repo_id}")
    return f"{endpoint()}/{repo_id}"


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Lets the client show its progress bars or not, which it else does where nobody sees them move."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def model_card(source: str | Path, repo_id: str, licence: str | None = None) -> str:
    """The README.md of a repository, told from what the folder or run says of itself."""
    from jinja2 import Environment, StrictUndefined

    place = Path(source).expanduser()
    about = read_json(_weights_in(place) / "model.json")
    recipe = _public(_json(place / "recipe.json"))
    figures = _json(place / "evaluation.json")
    told: dict[str, Any] = {
        "name": repo_id.rpartition("/")[2], "repo": repo_id, "licence": licence,
        "recipe": {key: value for key, value in recipe.items() if key != "schema"},
        "data": recipe.get("data", ""), "figures": figures, "top1": figures.get("top1", about.get("top1")),
        "classes": about.get("classes", []), "preprocess": about.get("preprocess"),
        "pictures": [name for name in PICTURES if (place / name).is_file()],
    }  # fmt: skip
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(CARD).render(told)


def _gather(place: Path, weights: Path, made: Path, repo_id: str, licence: str | None) -> None:
    """Puts all that is to be uploaded into one folder."""
    for name in ("model.json", "model.safetensors"):
        shutil.copy(weights / name, made)
    for name in ("evaluation.json", *PICTURES):
        if (place / name).is_file():
            shutil.copy(place / name, made)
    if (place / "recipe.json").is_file():
        (made / "recipe.json").write_text(json.dumps(_public(_json(place / "recipe.json")), indent=2) + "\n", encoding="utf-8")
    (made / "README.md").write_text(model_card(place, repo_id, licence), encoding="utf-8")


def _weights_in(place: Path) -> Path:
    """The folder itself, or a run's best weights. Raises FileNotFoundError where there are none."""
    for folder in (place, place / "best", place / "best.old"):
        if (folder / "model.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    raise FileNotFoundError(f"{place} holds no model: it has no model.json with model.safetensors, itself or in best/")


def _json(file: Path) -> dict[str, Any]:
    """What a file of a run says; nothing where there is no such file."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _public(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without the folders of the machine that it ran on: of paths to data, teacher and weights the last part stays."""
    if "data" not in recipe:
        return recipe
    name, colon, path = str(recipe["data"]).rpartition(":")
    told = {key: recipe.get(key) for key in ("teacher", "weights")}
    kept = {key: Path(text).name for key, text in told.items() if isinstance(text, str) and ":" not in text}
    return recipe | {"data": name if colon else Path(path).name or path} | kept
