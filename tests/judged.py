"""Objects and regions judged by several processes, for a test: `torchrun -m tests.judged OUT` writes OUT/<rank>.json."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.tasks import test_coco, test_regions

from metaformer.core.ranks import ALONE, Ranks, together
from metaformer.tasks import coco, regions


def summaries(ranks: Ranks = ALONE) -> list[dict[str, Any]]:
    """What follows from all answers, of which this process gives its own."""
    objects, maps = test_coco.scene(13, masks=True, seed=1), test_regions.scene(7)
    share = slice(ranks.rank, None, ranks.count)
    return [
        coco.judge(objects[share], test_coco.CLASSES, ranks).summary(),
        regions.judge(maps[share], test_regions.CLASSES, ranks).summary(),
    ]


if __name__ == "__main__":
    with together() as joined:
        done = summaries(joined)
        Path(sys.argv[1], f"{joined.rank}.json").write_text(json.dumps(done))
