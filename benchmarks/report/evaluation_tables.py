"""The tables of `sed-trt evaluate`."""

from .columns import NOTHING, Column, Row, Table, alive, number, scientific, value

# Of the tensors and stages that are listed by their error.
MAX_ERRORS = 10

SCORES = Table(
    "mIoU in percent",
    (
        value("categories", "categories", short="names"),
        value("rejection", "rejection"),
        number("mIoU seen", "miou_seen", digits=1, short="seen"),
        number("mIoU held-out", "miou_held_out", digits=1, short="held-out"),
        number("mIoU", "miou", digits=1, short="all"),
        number("pixel accuracy", "pixel_accuracy", digits=1, short="pixels"),
        alive("alive after each point", "kept", short="alive after"),
    ),
)

_NETWORK = Column("network", lambda results, _row: str(results["presets"][0]), short="")


def last_part(data: str) -> str:
    """Of a data set's name or path, the last part."""
    return data.rstrip("/").rsplit("/", 1)[-1]


def _images(scores: Row) -> str:
    """How many images of a data set were labelled, if not all."""
    return f"{scores['images']} of {scores['of']}" if scores["images"] < scores["of"] else NOTHING


def _side(header: str, key: str) -> Column:
    """The precision of one of the two that are compared, and what ran it."""
    return Column(
        header, lambda results, _row: f"{results[key]['precision']} ({results[key]['runs_on']})", ""
    )


_PARITY = (
    value("rejection", "source", "rejection"),
    number("mIoU", "source", "miou", digits=2),
    number("mIoU of the reference", "against", "miou", digits=2, short="against"),
    value("drop", "drop", to_text=lambda drop: f"{drop:+.2f}"),
    number("pixel agreement, %", "agreement", digits=2, short="agree"),
    alive("", "source", "kept", short="alive"),
)

DATASETS = Table(
    "percent",
    (
        _NETWORK,
        value("data", "data", to_text=last_part),
        Column("images", lambda _results, row: _images(row), short=""),
        value("rejection", "rejection"),
        number("mIoU", "miou", digits=1),
        number("published mIoU", "published", digits=1, short="paper"),
        number("fwIoU", "fwiou", digits=1),
        number("pixel accuracy", "pixel_accuracy", digits=1, short="pACC"),
        number("class accuracy", "class_accuracy", digits=1, short="mACC"),
        alive("alive", "kept"),
    ),
)
DATASET_PARITY = Table(
    "mIoU and agreement in percent",
    (
        _NETWORK,
        value("data", "source", "data", to_text=last_part),
        Column("images", lambda _results, row: _images(row["source"]), short=""),
        _side("precision", "source"),
        _side("reference", "against"),
        *_PARITY,
    ),
)
PARITY = Table(
    "mIoU and agreement in percent",
    (_side("precision", "source"), value("", "source", "categories", short="names"), *_PARITY),
)
STAGE_ERRORS = Table(
    "stages with the largest errors",
    (
        value("stage", "stage"),
        value("output", "output"),
        *(
            value(header, key, to_text=lambda found: f"{found:.2g}")
            for header, key in (("max error", "max_error"), ("mean error", "mean_error"), ("peak", "peak"))
        ),
    ),
    lambda results: (results["stages"] or {"errors": []})["errors"][:MAX_ERRORS],
)
TENSOR_ERRORS = Table(
    "tensors with the largest errors",
    (
        value("stage", "stage"),
        value("tensor", "tensor"),
        scientific("relative", "relative_error"),
        scientific("max error", "max_error"),
    ),
    lambda results: results["tensors"][:MAX_ERRORS],
)
ISLANDS = Table(
    "FP32 islands, relative error",
    (
        value("island", "island"),
        value("why it is FP32", "reason", short=""),
        scientific("relative error", "error_with"),
        scientific("in half", "error_without"),
        value("largest sum", "largest_sum", to_text=lambda found: f"{found:,.0f}"),
    ),
    lambda results: results["islands"],
)
