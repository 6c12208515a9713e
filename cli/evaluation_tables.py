"""The results of `sed-trt evaluate` as tables that fit into 80 columns."""

from typing import Any

from rich.console import Console
from rich.table import Table

WORST_STAGES = 8
WORST_TENSORS = 10


def show(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file: "scores", "parity" or "layerwise"."""
    {"scores": _show_scores, "parity": _show_parity, "layerwise": _show_layerwise}[kind](content)


def _show_scores(content: dict[str, Any]) -> None:
    table = _table(
        "mIoU in percent", "names", "rejection", "seen", "held-out", "all", "pixels", "alive after"
    )
    for row in content["results"]:
        keys = ("miou_seen", "miou_held_out", "miou", "pixel_accuracy")
        figures = (f"{row[key]:.1f}" for key in keys)
        table.add_row(str(row["categories"]), row["rejection"], *figures, _alive(row))
    Console().print(table)


def _show_parity(content: dict[str, Any]) -> None:
    ours, theirs = content["source"], content["against"]
    print(f"{ours['name']}: {ours['precision']} on {ours['runs_on']}")
    print(f"against {theirs['name']}: {theirs['precision']} on {theirs['runs_on']}")
    table = _table(
        "mIoU and agreement in percent", "names", "rejection", "mIoU", "against", "drop", "agree", "alive"
    )
    for row in content["results"]:
        source, against = row["source"], row["against"]
        figures = (
            f"{source['miou']:.2f}",
            f"{against['miou']:.2f}",
            f"{row['drop']:+.2f}",
            f"{row['agreement']:.2f}",
        )
        table.add_row(str(source["categories"]), source["rejection"], *figures, _alive(source))
    Console().print(table)
    if content["stages"] is not None:
        title = f"stages, worst first, {content['stages']['scenes']} scenes"
        table = _table(title, "stage", "output", "max error", "mean error", "largest value")
        for error in content["stages"]["errors"][:WORST_STAGES]:
            keys = ("max_error", "mean_error", "peak")
            table.add_row(error["stage"], error["output"], *(f"{error[key]:.2g}" for key in keys))
        Console().print(table)


def _show_layerwise(content: dict[str, Any]) -> None:
    precision = content["source"]["precision"]
    table = _table(f"tensors that lose most in {precision}", "stage", "tensor", "relative", "max error")
    for error in content["tensors"][:WORST_TENSORS]:
        figures = (f"{error[key]:.1e}" for key in ("relative_error", "max_error"))
        table.add_row(error["stage"], error["tensor"], *figures)
    Console().print(table)
    table = _table("FP32 islands, relative error", "island", "with", "without", "largest sum")
    for worth in content["islands"]:
        figures = (f"{worth[key]:.1e}" for key in ("error_with", "error_without", "largest_sum"))
        table.add_row(worth["island"], *figures)
    Console().print(table)


def _table(title: str, *headers: str) -> Table:
    # Without the outer frame every row fits.
    return Table(*headers, title=title, show_edge=False, pad_edge=False)


def _alive(row: dict[str, Any]) -> str:
    return " / ".join(f"{count:.0f}" for count in row["kept"])
