"""Every table of results: one for each kind on pages and in reports, and those that the commands print."""

from collections.abc import Iterator, Mapping, Sequence

from ..speed.candidates import OURS
from ..speed.profile import KINDS, OTHER
from .columns import NOTHING, Column, Results, Row, Table, alive, number, quartiles, scientific, value
from .latency_tables import (
    BASELINES_TABLE,
    CANDIDATES,
    GROWTH,
    LATENCY,
    LATENCY_ALONE,
    LATENCY_CANDIDATES,
    STREAM,
    candidate_rows,
)

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
            value(header, key, to_text=lambda error: f"{error:.2g}")
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
        value("largest sum", "largest_sum", to_text=lambda total: f"{total:,.0f}"),
    ),
    lambda results: results["islands"],
)

SWEEP = Table(
    "rejection policies",
    (
        value("categories", "categories"),
        value("rejection", "rejection"),
        alive("alive after each point", "kept"),
        number("ms", "p50_ms"),
        number("decoder, ms", "decoder_p50_ms"),
        number("mIoU", "miou", digits=2),
        number("pixel agreement with none, %", "agreement", digits=2),
    ),
)


def _share(kind: str) -> Column:
    """The part of a stage's time that a kind of operator takes, in percent."""
    return Column(
        f"{kind}, %",
        lambda _results, row: f"{100 * row['kinds_ms'][kind] / row['ms']:.0f}",
        short=kind,
    )


def _slowest(_results: Results, row: Row) -> str:
    return ", ".join(
        f"{name} {milliseconds:.0f}" for name, milliseconds in list(row["operators_ms"].items())[:4]
    )


PROFILE = Table(
    "percent of the time by kind of operator",
    (
        value("stage", "stage"),
        number("ms", "ms", digits=1),
        *(_share(kind) for kind in (*KINDS, OTHER)),
        Column("slowest operators, ms", _slowest, short=""),
    ),
)


def _load(_results: Results, row: Row) -> str:
    """How the requests of a row came."""
    if row["clients"]:
        return f"{row['clients']} clients" if row["clients"] > 1 else "1 client"
    relative = f" ({row['times_capacity']:g}x)" if row["times_capacity"] else ""
    return f"{row['rate']:.1f} a second{relative}"


def _other_answers(_results: Results, row: Row) -> str:
    """Answers that were neither accepted nor rejected, and requests without an answer."""
    counts = row["other_statuses"] | row["failures"]
    return ", ".join(f"{count} x {what}" for what, count in counts.items()) or NOTHING


SERVING = Table(
    "load on a server",
    (
        Column("load", _load),
        number("requests", "requests"),
        number("accepted", "accepted"),
        number("rejected (429)", "rejected", short="429"),
        Column("other answers", _other_answers, short="other"),
        number("accepted a second", "throughput", digits=1, short="a second"),
        number("p50, ms", "p50_ms"),
        number("p90, ms", "p90_ms"),
        number("p99, ms", "p99_ms"),
        number("memory before, MB", "memory_mb", "start", short="MB"),
        number("memory after, MB", "memory_mb", "end", short="after"),
    ),
)
ROOFLINE_STAGES = Table(
    "work of each stage",
    (
        value("network", "design"),
        value("stage", "stage"),
        number("GFLOP", "gflop", digits=1),
        number("minimum MB", "minimum_mb", digits=1),
        number("fused MB", "fused_mb", digits=1),
    ),
    lambda results: results["stages"],
)
ROOFLINE = Table(
    "milliseconds for an image",
    (
        value("GPU", "gpu"),
        value("network", "design"),
        value("source", "kind"),
        number("floor, ms", "floor_ms", digits=2, short="floor"),
        number("fused floor, ms", "fused_floor_ms", digits=2, short="fused"),
        number("measured, ms", "ms", digits=2, short="taken"),
        value("fraction reached", "fraction", short="reached", to_text=lambda share: f"{100 * share:.0f} %"),
    ),
)


def _step_rows(results: Results) -> Iterator[Row]:
    """A row for each step, for each candidate of those that measured latency, and for each kind of stream."""
    for record in results["results"]:
        if "latency" not in record:
            yield record
            continue
        latency = record["latency"]
        for row in candidate_rows(latency):
            stages = {name: times["p50_ms"] for name, times in row.get("stages", {}).items()}
            ours = [row["backend"], row["precision"]] if row["candidate"] == OURS else []
            runs_on = ", ".join(ours or latency["candidates"].get(row["candidate"], []))
            yield {**record, **row, "runs_on": runs_on or None, "stages_ms": stages or None}
        for row in latency["results"]:
            for way, rate in row.get("images_per_second", {}).items():
                yield {**record, "candidate": way, "categories": row["categories"], "per_second": rate}
        for name, reason in latency["skipped"].items():
            yield {**record, "candidate": f"{name} skipped", "reason": reason}


GPU_CHECK = Table(
    "what this machine runs",
    (
        value("step", "name"),
        value("state", "state"),
        number("s", "seconds"),
        value("candidate", "candidate"),
        value("runs on", "runs_on"),
        value("categories", "categories"),
        number("pixel agreement, %", "agreement", digits=2),
        number("images per second", "per_second", digits=1),
        number("first, ms", "first_call_ms", digits=1),
        number("p50, ms", "p50_ms", digits=1),
        number("p90, ms", "p90_ms", digits=1),
        quartiles("ours faster", "ratio"),
        value(
            "ms by stage",
            "stages_ms",
            to_text=lambda stages: " ".join(f"{k} {v:.1f}" for k, v in stages.items()),
        ),
        value("reason", "reason", to_text=lambda reason: reason.replace("|", "/")[:200]),
    ),
    _step_rows,
)

# By the kind of the results, the table on pages and in reports.
ON_PAGES: Mapping[str, Table] = {
    "scores": SCORES,
    "datasets": DATASETS,
    "dataset-parity": DATASET_PARITY,
    "parity": PARITY,
    "layerwise": ISLANDS,
    "latency": LATENCY,
    "sweep": SWEEP,
    "profile": PROFILE,
    "serving": SERVING,
    "roofline": ROOFLINE,
    "gpu-check": GPU_CHECK,
}
# By the word that opens a marker on a page, other tables of the same results.
VIEWS: Mapping[str, Mapping[str, Table]] = {
    "results": ON_PAGES,
    "baselines": {"latency": BASELINES_TABLE},
    "candidates": {"latency": CANDIDATES},
    "stream": {"latency": STREAM},
    "growth": {"latency": GROWTH},
}
# The tables that the commands print.
ON_TERMINALS: Mapping[str, Sequence[Table]] = {kind: (table,) for kind, table in ON_PAGES.items()} | {
    "parity": (PARITY, STAGE_ERRORS),
    "layerwise": (TENSOR_ERRORS, ISLANDS),
    "latency": (LATENCY_CANDIDATES, LATENCY_ALONE),
    "roofline": (ROOFLINE_STAGES, ROOFLINE),
}
