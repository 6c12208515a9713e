"""The results of `sed-trt evaluate` as tables that fit into 80 columns."""

from typing import Any

from .dataset_tables import show_dataset_parity, show_datasets
from .table_parts import alive, framed, printed, show_parity

WORST_STAGES = 8
WORST_TENSORS = 10


def show(kind: str, content: dict[str, Any]) -> None:
    """Print the content of a results file of one of the kinds of `sed-trt evaluate`."""
    {
        "scores": _show_scores,
        "parity": _show_parity,
        "layerwise": _show_layerwise,
        "datasets": show_datasets,
        "dataset-parity": show_dataset_parity,
    }[kind](content)


def _show_scores(content: dict[str, Any]) -> None:
    table = framed(
        "mIoU in percent", "names", "rejection", "seen", "held-out", "all", "pixels", "alive after"
    )
    for row in content["results"]:
        keys = ("miou_seen", "miou_held_out", "miou", "pixel_accuracy")
        figures = (f"{row[key]:.1f}" for key in keys)
        table.add_row(str(row["categories"]), row["rejection"], *figures, alive(row["kept"]))
    printed(table)


def _show_parity(content: dict[str, Any]) -> None:
    show_parity(content, "names", lambda scores: str(scores["categories"]))
    if content["stages"] is not None:
        title = f"stages, worst first, {content['stages']['scenes']} scenes"
        table = framed(title, "stage", "output", "max error", "mean error", "largest value")
        for error in content["stages"]["errors"][:WORST_STAGES]:
            keys = ("max_error", "mean_error", "peak")
            table.add_row(error["stage"], error["output"], *(f"{error[key]:.2g}" for key in keys))
        printed(table)


def _show_layerwise(content: dict[str, Any]) -> None:
    precision = content["source"]["precision"]
    table = framed(f"tensors that lose most in {precision}", "stage", "tensor", "relative", "max error")
    for error in content["tensors"][:WORST_TENSORS]:
        figures = (f"{error[key]:.1e}" for key in ("relative_error", "max_error"))
        table.add_row(error["stage"], error["tensor"], *figures)
    printed(table)
    table = framed("FP32 islands, relative error", "island", "with", "without", "largest sum")
    for worth in content["islands"]:
        figures = (f"{worth[key]:.1e}" for key in ("error_with", "error_without", "largest_sum"))
        table.add_row(worth["island"], *figures)
    printed(table)
