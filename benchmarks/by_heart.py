"""Eight images learnt by heart: each head on two small backbones, trained on eight images and judged on the same ones.

python benchmarks/by_heart.py ANNOTATIONS.json IMAGES --out FOLDER
They are the first eight images of a COCO file with masks; regions are its objects on the ground. There is no augmentation: a
model that cannot learn eight images has a fault. A run in the folder goes on where it was cut.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from PIL import Image

from metaformer.data.dense import open_dense
from metaformer.data.truth import Objects
from metaformer.lab.jobs import train
from metaformer.runs import Run, is_run, open_run

BACKBONES = ("poolformerv2_t6", "caformer_t6")
GOALS = {
    "retinanet": ("box_ap50", 95), "faster_rcnn": ("box_ap50", 95), "mask_rcnn": ("mask_ap50", 90),
    "semantic_fpn": ("miou", 90), "upernet": ("miou", 90),
}  # fmt: skip
SEGMENTERS = ("semantic_fpn", "upernet")
COUNT = 8


def eight_objects(file: Path, images: Path, out: Path) -> str:
    """The data set of the first eight images of an annotation file, which learn and judge."""
    told = json.loads(file.read_text(encoding="utf-8"))
    told["images"] = told["images"][:COUNT]
    ours = {image["id"] for image in told["images"]}
    told["annotations"] = [one for one in told["annotations"] if one["image_id"] in ours]
    (out / "images").mkdir(parents=True, exist_ok=True)
    for image in told["images"]:
        shutil.copy(images / Path(image["file_name"]).name, out / "images")
    for part in ("train", "val"):
        (out / f"{part}.json").write_text(json.dumps(told), encoding="utf-8")
    return f"coco:{out / 'train.json'},{out / 'val.json'}"


def eight_regions(objects: str, out: Path) -> str:
    """The same images, their objects painted as regions: 0 is the ground."""
    data = open_dense(objects, regions=False, masks=True)
    for part in ("train", "val"):
        for n in range(COUNT):
            scene = data.train.scene(n)
            assert isinstance(scene.truth, Objects)
            assert scene.truth.masks is not None
            regions = torch.zeros(scene.height, scene.width, dtype=torch.uint8)
            for mask, label in zip(scene.truth.masks, scene.truth.labels.tolist(), strict=True):
                regions[mask.bool()] = label + 1
            for kind, pixels in (("images", scene.image.movedim(0, 2)), ("masks", regions)):
                (out / kind / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(out / kind / part / f"{n}.png")
    (out / "classes.txt").write_text("\n".join(("ground", *data.classes)) + "\n", encoding="utf-8")
    return f"masks:{out}"


def learnt(head: str, backbone: str, data: str, epochs: int, out: Path) -> Run:
    """The run of a model, begun, gone on with or there already."""
    folder = out / f"{head}-{backbone}"
    if is_run(folder):
        return open_run(folder) if open_run(folder).finished else train(folder)
    slow = head == "upernet"  # deeper than the others, without a shortcut
    changes = {"channels": "64", "head_channels": "64", "head_norm": "GroupNorm(groups=16)"}
    if head not in SEGMENTERS:
        changes |= {"anchor_scale": "2" if head == "retinanet" else "4"}
    return train(
        f"{head}/{backbone}", data=data, name=folder.name, root=out, image_size=240, augment="coco", flip=0.0, epochs=epochs,
        batch=2 if slow else 4, lr=3e-3 if slow else 1e-3, layer_decay=1.0, ema=None, drop_path=0.0, weight_decay=0.0,
        workers=0, precision="bf16", changes=changes,
    )  # fmt: skip


def main() -> None:
    """Prints a table: model, figure, goal, epochs, minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, help="COCO's JSON, with polygons")
    parser.add_argument("images", type=Path, help="the folder of its images")
    parser.add_argument("--out", type=Path, default=Path("by_heart"))
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--heads", nargs="+", choices=GOALS, default=list(GOALS))
    args = parser.parse_args()
    objects = eight_objects(args.annotations, args.images, args.out / "objects")
    regions = eight_regions(objects, args.out / "regions")
    rows: list[str] = []
    for head in args.heads:
        figure, goal = GOALS[head]
        for backbone in BACKBONES:
            run = learnt(head, backbone, regions if head in SEGMENTERS else objects, args.epochs, args.out)
            best = max(line[figure] for line in run.metrics)
            minutes = sum(line["seconds"] for line in run.metrics) / 60
            rows.append(f"| `{head}/{backbone}` | {figure} | {best:.1f} | {goal} | {len(run.metrics)} | {minutes:.1f} |")
    print("| model | figure | reached | goal | epochs | minutes |\n|---|---|---:|---:|---:|---:|\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
