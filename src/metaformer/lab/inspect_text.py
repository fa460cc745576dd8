"""What inspecting found, as a table for a screen."""

from metaformer.lab.inspect import Inspection, PartFigures
from metaformer.lab.tables import Rows, columns


def inspected_text(found: Inspection) -> str:
    """A row for each part, then the whole."""
    timed = found.whole.seconds is not None
    rows: Rows = [("part", "what", "gives", "parameters", "MACs", "kept", "peak", *(("ms", "quartiles") if timed else ()))]
    rows += [_row(part, timed=timed) for part in (*found.parts, found.whole)]
    images = f"{found.batch} image{'s' if found.batch > 1 else ''} of {found.image_size} × {found.image_size}"
    said = (
        f"{images} on {found.device}; kept: MB for the backward pass; peak: MB alive at once in inference; both without weights"
    )
    return f"{columns(rows, right=(3, 4, 5, 6, 7, 8))}\n\n{said}"


def _row(part: PartFigures, *, timed: bool) -> tuple[str, ...]:
    shape = "" if part.shape is None else " × ".join(map(str, part.shape))
    macs = "–" if part.macs is None else f"{part.macs:,}"
    row = (part.name, part.kind, shape, f"{part.parameters:,}", macs, f"{part.kept / 1e6:.2f}", f"{part.peak / 1e6:.2f}")
    if not timed:
        return row
    if part.seconds is None or part.low is None or part.high is None:
        return (*row, "", "")
    return (*row, f"{1e3 * part.seconds:.2f}", f"{1e3 * part.low:.2f}–{1e3 * part.high:.2f}")
