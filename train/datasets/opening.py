"""Data sets by name."""

import os
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError
from ...files import is_folder
from ..scenes import VOCABULARY, Split
from .dataset import Dataset
from .files import FileDataset
from .own import open_own
from .published import PUBLISHED, FolderLayout, PublishedSet
from .scenes import Scenes

ROOT_VARIABLE = "SED_DATASETS"
SCENES = "scenes"
SCENE_SPLITS: tuple[Split, ...] = get_args(Split)
NAMES: tuple[str, ...] = (*PUBLISHED, SCENES)


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
        return _open_scenes(split or "test")
    if name in PUBLISHED:
        return _open_published(name, PUBLISHED[name], split or "val", datasets_root(root))
    if is_folder(Path(name)):
        return open_own(Path(name), split or "val")
    raise InputError(
        f"data: {name!r} is neither a data set nor a folder; choose one of {', '.join(NAMES)}, or give a "
        "folder with images/, labels/ and names.txt"
    )


def _open_scenes(split: str) -> Scenes:
    for known in SCENE_SPLITS:
        if split == known:
            return Scenes(known)
    raise InputError(f"split: {split!r} is unknown for {SCENES}; choose one of {', '.join(SCENE_SPLITS)}")


def _open_published(name: str, published: PublishedSet, split: str, root: Path) -> FileDataset:
    if split not in published.layouts:
        splits = ", ".join(published.layouts)
        raise InputError(f"split: {split!r} is unknown for {name}; choose one of {splits}")
    layout = layout_at(published, split, root)
    if layout is None:
        raw, converted = published.layouts[split][-1], published.layouts[split][0]
        raise MissingDataError(
            f"{name}: {' and '.join(raw.missing(root))} not found under {root}; "
            f"expected {', '.join(raw.needed)}, or converted labels in {converted.labels}; "
            f"check {ROOT_VARIABLE} or --root"
        )
    return FileDataset(
        name,
        split,
        published.names,
        layout.open(root),
        published.classes,
        published.scored_as,
        published.max_short_side,
    )


def layout_at(published: PublishedSet, split: str, root: Path) -> FolderLayout | None:
    """The layout in which a split lies under the root, converted before raw; None where it is not whole.

    An empty folder of converted labels counts as none.
    """
    for layout in published.layouts[split]:
        if not layout.missing(root) and (layout.kind == "raw" or _holds_files(root / layout.labels)):
            return layout
    return None


def _holds_files(folder: Path) -> bool:
    """Whether anything but hidden files, such as .DS_Store, is in the folder, or it cannot be listed."""
    try:
        return any(not each.name.startswith(".") for each in folder.iterdir())
    except OSError:
        # Opening the layout says why.
        return True


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


def list_datasets(root: Path | None = None) -> list[dict[str, Any]]:
    """A row for each split of each set: "name", "split", "about", "expected", "converted" and "found".

    "expected" are folders and files of the download, relative to the root, "converted" the folder of labels
    that preparation scripts write, and "found" is "raw", "converted" or what is not there.

    Args:
        root: the folder that holds the published sets; None means $SED_DATASETS, which may be unset.

    Raises:
        InputError: the root is no folder.
    """
    folder = datasets_root(root) if root is not None or os.environ.get(ROOT_VARIABLE) else None
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "split": split,
            "about": published.about,
            "expected": list(layouts[-1].needed),
            "converted": layouts[0].labels,
            "found": _state(published, split, folder),
        }
        for name, published in PUBLISHED.items()
        for split, layouts in published.layouts.items()
    ]
    for split in SCENE_SPLITS:
        row = {"name": SCENES, "split": split, "about": f"procedural scenes, {len(VOCABULARY)} categories"}
        rows.append({**row, "expected": [], "converted": None, "found": "drawn when needed"})
    return rows


def _state(published: PublishedSet, split: str, root: Path | None) -> str:
    """The kind of a split's layout under the root, or what is not there."""
    if root is None:
        return f"unknown: {ROOT_VARIABLE} is not set"
    layout = layout_at(published, split, root)
    return layout.kind if layout else f"missing: {', '.join(published.layouts[split][-1].missing(root))}"
