"""Data sets by name."""

import os
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_folder
from ..scenes import VOCABULARY, Split
from .dataset import Dataset
from .files import FileDataset
from .own import open_own
from .published import PUBLISHED, Layout, PublishedSet
from .scenes import Scenes

ROOT_VARIABLE = "SED_DATASETS"
SCENES = "scenes"
NAMES: tuple[str, ...] = (*PUBLISHED, SCENES)
SCENE_SPLITS: tuple[Split, ...] = ("train", "test")


class MissingDataError(InputError):
    """A published set of which the split is not, or not whole, under the root; the message names it."""


def open_dataset(name: str, split: str | None = None, root: Path | None = None) -> Dataset:
    """A data set, with its files listed but none of them read, and each with a partner.

    Args:
        name: one of `NAMES`, or the path of an own folder.
        split: None means "val", and "test" for scenes.
        root: the folder that holds the published sets; None means $SED_DATASETS.

    Raises:
        MissingDataError: files or folders of a published set are not there.
        InputError: unknown name or split, no folder of own data, images without labels or labels without
            images.
    """
    dataset = find_dataset(name, split, root)
    if isinstance(dataset, FileDataset):
        faults = dataset.source.listing.faults()
        if faults:
            raise InputError(
                f"{name}, split {dataset.split}: {'; '.join(faults)}; restore the missing files "
                f"(`sed-trt data check {name} --json` lists them) or remove their partners"
            )
    return dataset


def find_dataset(name: str, split: str | None = None, root: Path | None = None) -> Dataset:
    """As `open_dataset`, but images and labels may lack their partners."""
    if name == SCENES:
        return _scenes(split or "test")
    if name in PUBLISHED:
        dataset = _published(name, PUBLISHED[name], split or "val", datasets_root(root))
    elif is_folder(Path(name)):
        dataset = open_own(Path(name), split or "val")
    else:
        raise InputError(
            f"data: {name!r} is neither a data set nor a folder; choose one of {', '.join(NAMES)}, or give a "
            "folder with images/, labels/ and names.txt"
        )
    return dataset


def datasets_root(root: Path | None) -> Path:
    """The folder that holds the published sets, None being $SED_DATASETS.

    Raises:
        InputError: neither is given, or it is no folder.
    """
    given = "root"
    if root is None:
        given = f"${ROOT_VARIABLE}"
        value = os.environ.get(ROOT_VARIABLE)
        if not value:
            raise InputError(
                f"{given}: is not set; set it to the folder that holds the data sets, or give --root"
            )
        root = Path(value)
    if not is_folder(root):
        raise InputError(
            f"{root}: is no folder ({given}); set {ROOT_VARIABLE} or --root to the folder of the data sets"
        )
    return root


def layout_at(found: PublishedSet, split: str, root: Path) -> Layout | None:
    """The layout in which a split lies under the root, converted before raw; None where it is not whole.

    An empty folder of converted labels counts as none.
    """
    for layout in found.layouts[split]:
        if layout.missing(root):
            continue
        if layout.kind == "raw" or _holds_files(root / layout.labels):
            return layout
    return None


def _holds_files(folder: Path) -> bool:
    """Whether anything but hidden files, such as .DS_Store, is in the folder, or it cannot be listed."""
    try:
        return any(not each.name.startswith(".") for each in folder.iterdir())
    except OSError:
        # Opening the layout says why.
        return True


def _published(name: str, found: PublishedSet, split: str, root: Path) -> FileDataset:
    if split not in found.layouts:
        raise InputError(f"split: {split!r} is unknown for {name}; choose one of {', '.join(found.layouts)}")
    layout = layout_at(found, split, root)
    if layout is None:
        raise MissingDataError(f"{name}: {what_is_missing(found, split, root)}")
    return FileDataset(
        name, split, found.names, layout.open(root), found.classes, found.scored_as, found.max_short_side
    )


def what_is_missing(found: PublishedSet, split: str, root: Path) -> str:
    """Why a split cannot be read, and what would help, in one line."""
    raw, converted = found.layouts[split][-1], found.layouts[split][0]
    missing = " and ".join(raw.missing(root))
    return (
        f"{missing} not found under {root}; expected {', '.join(raw.needed)}, or converted labels in "
        f"{converted.labels}; check {ROOT_VARIABLE} or --root"
    )


def _scenes(split: str) -> Scenes:
    for known in SCENE_SPLITS:
        if split == known:
            return Scenes(known)
    raise InputError(f"split: {split!r} is unknown for {SCENES}; choose one of {', '.join(SCENE_SPLITS)}")


def list_datasets(root: Path | None = None) -> list[dict[str, Any]]:
    """A row for each split of each set: "name", "split", "about", "expected", "converted" and "found".

    "expected" are folders and files of the download, relative to the root, "converted" the folder of labels
    that preparation scripts write, and "found" is "raw", "converted" or what is not there.

    Args:
        root: the folder that holds the published sets; None means $SED_DATASETS, which may be unset.

    Raises:
        InputError: the root is no folder.
    """
    known = root is not None or bool(os.environ.get(ROOT_VARIABLE))
    folder = datasets_root(root) if known else None
    rows: list[dict[str, Any]] = []
    for name, found in PUBLISHED.items():
        for split, layouts in found.layouts.items():
            raw, converted = layouts[-1], layouts[0]
            state = f"unknown: {ROOT_VARIABLE} is not set"
            if folder is not None:
                layout = layout_at(found, split, folder)
                state = layout.kind if layout else f"missing: {', '.join(raw.missing(folder))}"
            rows.append(
                {
                    "name": name,
                    "split": split,
                    "about": found.about,
                    "expected": list(raw.needed),
                    "converted": converted.labels,
                    "found": state,
                }
            )
    about = f"procedural scenes, {len(VOCABULARY)} categories"
    for split in SCENE_SPLITS:
        rows.append(
            {
                "name": SCENES,
                "split": split,
                "about": about,
                "expected": [],
                "converted": None,
                "found": "drawn when needed",
            }
        )
    return rows
