"""What explaining found, as text for a screen."""

from typing import Any

from metaformer.lab.judge_page import short
from metaformer.lab.tables import Rows, columns


def explained_text(told: dict[str, Any]) -> str:
    """The answers, how far each level sees, the similarity of levels with themselves left out."""
    models = told["models"]
    names = short([model["name"] for model in models])
    heads: Rows = [("image", *names)]
    for number, image in enumerate(told["images"]):
        said = (f"{model['answers'][number]['label']} {model['answers'][number]['probability']:.1%}" for model in models)
        heads.append((image, *said))
    parts = [columns(heads)]
    if "reach" in models[0]:
        rows: Rows = [("sees", "level", "half within", "95 % within", "of pixels")]
        for name, model in zip(names, models, strict=True):
            rows += [(name, one["name"], str(one["side_50"]), str(one["side_95"]), str(one["of"])) for one in model["reach"]]
        parts.append(columns(rows, right=(2, 3, 4)))
    for pair in told["similarity"]:
        if pair["one"] != pair["other"]:
            rows = [("CKA", *pair["columns"])]
            rows += [(name, *(f"{value:.2f}" for value in row)) for name, row in zip(pair["rows"], pair["values"], strict=True)]
            parts.append(f"{pair['one']} beside {pair['other']}\n{columns(rows, right=tuple(range(1, len(rows[0]))))}")
    return "\n\n".join([*parts, *(f"{one['path']}: {one['error']}" for one in told["unreadable"])])
