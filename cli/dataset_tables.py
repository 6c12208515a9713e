"""The results of `sed-trt evaluate --data` as tables that fit into 80 columns."""

from typing import Any

from rich.markup import escape

from .table_parts import alive, figure, framed, named, printed, show_parity


def show_datasets(content: dict[str, Any]) -> None:
    """Print the scores by set and policy, and beside the published ones where they may be compared."""
    print(named(content["source"]))
    table = framed("percent", "data", "rejection", "mIoU", "paper", "fwIoU", "pACC", "mACC", "alive")
    for row in content["results"]:
        keys = ("miou", "published", "fwiou", "pixel_accuracy", "class_accuracy")
        figures = (figure(row[key]) for key in keys)
        kept = alive(row["kept"]).replace(" ", "")
        table.add_row(escape(_short(row["data"])), row["rejection"], *figures, kept)
    printed(table)
    _say_what_was_left_out(content["results"])
    _show_published(content)


def show_dataset_parity(content: dict[str, Any]) -> None:
    """Print both sides' mIoU by set and policy."""
    show_parity(content, "data", lambda scores: _short(scores["data"]))
    _say_what_was_left_out([row["source"] for row in content["results"]])


def show_categories(content: dict[str, Any]) -> None:
    """Print IoU, accuracy and pixels of every category, a table for each set and policy."""
    for row in content["results"]:
        scores = row.get("source", row)
        title = f"{_short(scores['data'])}, rejection {scores['rejection']}"
        table = framed(escape(title), "category", "IoU", "accuracy", "pixels")
        for category in scores["per_category"]:
            figures = (figure(category[key]) for key in ("iou", "accuracy"))
            table.add_row(escape(category["name"]), *figures, str(category["pixels"]))
        printed(table)


def _show_published(content: dict[str, Any]) -> None:
    from ..benchmarks.published_scores import DATA, MIOU

    rows = [row for row in content["results"] if row["as_published"]]
    if not any(row["data"] in DATA for row in rows):
        return
    table = framed("mIoU beside the published one", "", "rejection", *DATA)
    for rejection in dict.fromkeys(row["rejection"] for row in rows):
        found = {row["data"]: row["miou"] for row in rows if row["rejection"] == rejection}
        table.add_row(content["presets"][0], rejection, *(figure(found.get(name)) for name in DATA))
    for (preset, rejection), published in MIOU.items():
        table.add_row(f"published {preset}", rejection, *map(figure, published))
    printed(table)


def _short(data: str) -> str:
    """Of an own folder the last part of its path says enough."""
    return data.rstrip("/").rsplit("/", 1)[-1]


def _say_what_was_left_out(rows: list[dict[str, Any]]) -> None:
    parts = {row["data"]: (row["pictures"], row["of"]) for row in rows if row["pictures"] < row["of"]}
    for data, (pictures, of) in parts.items():
        print(f"{_short(data)}: {pictures} of its {of} pictures")
