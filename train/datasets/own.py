"""Own data: a folder of images, a folder of label PNGs, and a file of names."""

from functools import partial
from pathlib import Path

from ...errors import InputError
from ...files import IMAGE_SUFFIXES, is_file, is_folder
from ...runtime.images import load_image
from ...runtime.vocabulary import checked_names, read_vocabulary
from .files import FileDataset, FileSource, check_not_empty, files_by_key, paired, read_file, text_lines
from .labels import counted_from, read_label_image

SPLITS = ("train", "val")
NAMES_FILES = ("names.txt", "names.json")
LABEL_ENDINGS = (".png", ".tif", ".tiff")
_IGNORED_8_BITS, _IGNORED_16_BITS = 255, 65535


def open_own(folder: Path, split: str) -> FileDataset:
    """The set in a folder that holds `images/`, `labels/` and `names.txt` or `names.json`.

    A label file has the stem of its image; its values are lines of the names, from 0, and 255 (in 16 bits
    65535) is not scored. Splits may lie in `train/` and `val/`, each with `images/` and `labels/`, or in
    `images/train` and so on; without them every split is the whole folder.

    Raises:
        InputError: a folder or the names are missing or cannot be read, or the split is none of the above.
    """
    if split not in SPLITS:
        raise InputError(f"split: {split!r} is unknown for {folder}; choose one of {', '.join(SPLITS)}")
    names = _read_names(folder)
    images, labels = _folders(folder, split)
    image_files = files_by_key(images, sorted(IMAGE_SUFFIXES))
    label_files = files_by_key(labels, LABEL_ENDINGS)
    listing = paired(image_files, label_files, sorted({*image_files, *label_files}))
    check_not_empty(listing, images, labels)
    tables = {
        1: counted_from(0, min(len(names), _IGNORED_8_BITS), [_IGNORED_8_BITS]),
        0: counted_from(0, len(names), [_IGNORED_16_BITS]),
    }
    source = FileSource("own", listing, load_image, partial(read_file, read_label_image), tables)
    return FileDataset(str(folder), split, names, source)


def _read_names(folder: Path) -> tuple[str, ...]:
    path = next((folder / name for name in NAMES_FILES if is_file(folder / name)), None)
    if path is None:
        raise InputError(
            f"{folder}: neither {' nor '.join(NAMES_FILES)} is there; write the category names in the "
            "order of the labels' values, one per line"
        )
    names = read_vocabulary(path) if path.suffix == ".json" else text_lines(path, "save it as UTF-8")
    blank = next((number for number, name in enumerate(names, 1) if not name.strip()), None)
    if blank is not None:
        raise InputError(
            f"{path}: line {blank} is blank, so that the value of the next name is unclear; remove it"
        )
    try:
        return checked_names(names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _folders(folder: Path, split: str) -> tuple[Path, Path]:
    """Images and labels of the split."""
    ways = (
        (f"{split}/images", f"{split}/labels"),
        (f"images/{split}", f"labels/{split}"),
    )
    for images, labels in ways:
        if is_folder(folder / images) and is_folder(folder / labels):
            return folder / images, folder / labels
    others = [each for each in SPLITS if is_folder(folder / each) or is_folder(folder / "images" / each)]
    if others:
        raise InputError(
            f"{folder}: has the split {' and '.join(others)} but no whole {split!r}; "
            f"expected {ways[0][0]} and {ways[0][1]} in it"
        )
    missing = [each for each in ("images", "labels") if not is_folder(folder / each)]
    if missing:
        raise InputError(
            f"{folder}: the folder {' and '.join(missing)} is missing; own data has images/, labels/ with a "
            f"PNG for each image, and {' or '.join(NAMES_FILES)}"
        )
    return folder / "images", folder / "labels"
