"""Which data sets there are, and where."""

import os
from pathlib import Path
from typing import Any

from ..scenes import VOCABULARY
from .opening import ROOT_VARIABLE, SCENE_SPLITS, SCENES, datasets_root, layout_at
from .published import PUBLISHED


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
