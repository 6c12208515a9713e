"""Writers of tiny data sets in exactly the published layouts, raw and converted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (7, 5)


def flat_image(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An image of one random colour, which JPEG keeps nearly as it is, uint8 (H, W, 3)."""
    colour = np.random.default_rng(seed).integers(0, 256, 3, dtype=np.uint8)
    return np.broadcast_to(colour, (*size, 3)).copy()


def write_jpeg(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """A JPEG, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat_image(seed, size)).save(path, quality=95)


def write_labels(path: Path, values: np.ndarray, palette: bool = False) -> None:
    """A PNG or TIFF of the values' own depth, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(list(range(256)) * 3)
    image.save(path)


def write_folders(
    base: Path, part: str, raw: dict[str, np.ndarray], converted: dict[str, np.ndarray] | None
) -> None:
    """Folders of images, labels and converted labels, each with one for the split."""
    for seed, (name, values) in enumerate(raw.items()):
        write_jpeg(base / f"images/{part}/{name}.jpg", seed, values.shape)
        write_labels(base / f"annotations/{part}/{name}.png", values)
    for name, values in (converted or {}).items():
        write_labels(base / f"annotations_detectron2/{part}/{name}.png", values)


def write_coco(
    root: Path, raw: dict[str, np.ndarray], split: str = "val", converted: dict[str, np.ndarray] | None = None
) -> None:
    """`coco-stuff`: 8-bit PNG beside JPEGs; `converted` has category indices and 255."""
    write_folders(root / "coco-stuff", f"{split}2017", raw, converted)


def write_ade150(
    root: Path, raw: dict[str, np.ndarray], converted: dict[str, np.ndarray] | None = None
) -> None:
    """`ADEChallengeData2016`: ids from 1, 0 not scored; `converted` from 0, 255 not scored."""
    write_folders(root / "ADEChallengeData2016", "validation", raw, converted)


def write_ade847(root: Path, raw: dict[str, np.ndarray]) -> None:
    """`ADE20K_2021_17_01`: images in folders of places, with `_seg.png` beside each."""
    base = root / "ADE20K_2021_17_01/images/ADE/validation"
    for seed, (name, ids) in enumerate(raw.items()):
        place = base / ("urban/street" if seed % 2 else "home_or_hotel/bedroom")
        write_jpeg(place / f"{name}.jpg", seed, ids.shape)
        instances = np.random.default_rng(seed).integers(0, 256, ids.shape)
        # Red holds the id's upper part times ten, plus a digit that means nothing here.
        red = ids // 256 * 10 + instances % 10
        colours = np.stack([red, ids % 256, instances], axis=-1).astype(np.uint8)
        write_labels(place / f"{name}_seg.png", colours)
        write_labels(place / f"{name}_parts_1.png", colours)
        (place / f"{name}.json").write_text("{}")


def write_ade847_converted(root: Path, labels: dict[str, np.ndarray], with_images: bool) -> None:
    """The 16-bit TIFFs that the scripts write, with their resized images or without."""
    base = root / "ADE20K_2021_17_01"
    for seed, (name, values) in enumerate(labels.items()):
        write_labels(base / f"annotations_detectron2/validation/{name}.tif", values.astype(np.uint16))
        if with_images:
            write_jpeg(base / f"images_detectron2/validation/{name}.jpg", seed, values.shape)


def write_voc(root: Path, raw: dict[str, np.ndarray], unused: str = "2007_000032") -> None:
    """`VOC2012`: palette PNG, the list of the validation split, and an image that is not in it."""
    base = root / "VOCdevkit/VOC2012"
    for seed, (name, values) in enumerate(raw.items()):
        write_jpeg(base / f"JPEGImages/{name}.jpg", seed, values.shape)
        write_labels(base / f"SegmentationClassAug/{name}.png", values, palette=True)
    write_jpeg(base / f"JPEGImages/{unused}.jpg", 99)
    write_labels(base / f"SegmentationClassAug/{unused}.png", np.zeros(SIZE, np.uint8))
    listed = base / "ImageSets/Segmentation/val.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("".join(f"{name}\n" for name in raw))


def write_voc_converted(root: Path, labels: dict[str, np.ndarray], background: bool) -> None:
    """The PNGs that the scripts write for voc20 or voc20b."""
    folder = root / f"VOCdevkit/VOC2012/annotations_detectron2{'_bg' if background else ''}/val"
    for name, values in labels.items():
        write_labels(folder / f"{name}.png", values)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a mask: columns first, zeros first."""
    counts, value = [0], False
    for each in mask.ravel(order="F"):
        if bool(each) != value:
            counts.append(0)
            value = not value
        counts[-1] += 1
    return counts


def write_pc59(root: Path, raw: dict[str, np.ndarray], form: str = "compressed") -> None:
    """`trainval_merged.json` of VOC2010 with masks as "compressed", "lengths" or "polygons" (of rectangles).

    An image of the phase "train" is in it as well, and not to be read.
    """
    from pycocotools import mask as coco

    base = root / "VOCdevkit/VOC2010"
    images, annotations = [], []
    for seed, (name, ids) in enumerate({**raw, "2008_009999": np.full(SIZE, 2)}.items()):
        write_jpeg(base / f"JPEGImages/{name}.jpg", seed, ids.shape)
        height, width = ids.shape
        images.append(
            {
                "image_id": 1000 + seed,
                "file_name": f"{name}.jpg",
                "height": height,
                "width": width,
                "phase": "val" if name in raw else "train",
            }
        )
        for category in np.unique(ids):
            mask = (ids == category).astype(np.uint8)
            segmentation: Any = coco.encode(np.asfortranarray(mask))
            segmentation["counts"] = segmentation["counts"].decode()
            if form == "lengths":
                segmentation["counts"] = run_lengths(mask)
            elif form == "polygons":
                rows, columns = np.nonzero(mask)
                left, right = int(columns.min()), int(columns.max()) + 1
                top, bottom = int(rows.min()), int(rows.max()) + 1
                segmentation = [[left, top, right, top, right, bottom, left, bottom]]
            annotations.append(
                {"image_id": 1000 + seed, "category_id": int(category), "segmentation": segmentation}
            )
    content = {"images": images, "annos_segmentation": annotations}
    (base / "trainval_merged.json").write_text(json.dumps(content))


def write_pc459(root: Path, raw: dict[str, np.ndarray]) -> None:
    """`trainval/<id>.mat` of VOC2010 with the variable LabelMap, and `pascalcontext_val.txt`.

    An image of the training split is there as well, and not to be read.
    """
    from scipy.io import savemat

    base = root / "VOCdevkit/VOC2010"
    (base / "trainval").mkdir(parents=True)
    for seed, (name, values) in enumerate({**raw, "2008_009999": np.full(SIZE, 1, np.uint16)}.items()):
        write_jpeg(base / f"JPEGImages/{name}.jpg", seed, values.shape)
        savemat(base / f"trainval/{name}.mat", {"LabelMap": values}, do_compression=True)
    (base / "pascalcontext_val.txt").write_text("".join(f"{name}\n" for name in raw))


def write_context_converted(root: Path, labels: dict[str, np.ndarray], folder: str) -> None:
    """What the scripts write into "pc59_val" (8-bit PNG) or "pc459_val" (16-bit TIFF)."""
    base = root / "VOCdevkit/VOC2010/annotations_detectron2" / folder
    for name, values in labels.items():
        depth, ending = (np.uint8, "png") if folder == "pc59_val" else (np.uint16, "tif")
        write_labels(base / f"{name}.{ending}", values.astype(depth))


def write_own(folder: Path, names: list[str], labels: dict[str, np.ndarray], inner: str = "") -> None:
    """Own data: `names.txt`, and `images/` and `labels/` in the folder `inner`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))
    for seed, (name, values) in enumerate(labels.items()):
        write_jpeg(folder / inner / f"images/{name}.jpg", seed, values.shape)
        write_labels(folder / inner / f"labels/{name}.png", values)
