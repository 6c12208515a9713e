"""The tables of latency results.

Each row of these results is of one bundle, whose figures stand under `OURS`, and of the baselines, which ran
in the same rounds.
"""

from collections.abc import Iterator

from ..speed.candidates import BASELINE, BASELINE_BF16, BASELINES, OURS
from ..speed.rounds import ONE_AT_A_TIME, SIDE_BY_SIDE, STREAM_BATCHES
from .columns import Column, Results, Row, Table, number, quartiles, value
from .joined import TRAINED


def of_row(results: Results, row: Row, key: str) -> str:
    """The precision or the backend of the bundle of a row; older results have one for all rows."""
    return str(row.get(key) or results[key])


def _machine(results: Results, _row: Row) -> str:
    return results["gpu"] or f"{results['cpu']}, {results['threads'] or results['cpu_cores']} cores"


def _p50(header: str, candidate: str) -> Column:
    return number(header, "candidates", candidate, "p50_ms")


def _times_ours(header: str, candidate: str, group: str = "whole") -> Column:
    return quartiles(header, "ours_faster_than", candidate, group)


_WHICH = (
    Column("machine", _machine, short=""),
    Column("precision", lambda results, row: of_row(results, row, "precision")),
    Column("backend", lambda results, row: of_row(results, row, "backend")),
)
_SIZE = (value("categories", "categories", short="names"), value("kept", "kept"))
# Of a trained network in the same precision on the same backend; see `joined`.
_TRAINED = (
    number("sed-tiny's mIoU", TRAINED, "miou", digits=2, short=""),
    number("sed-tiny's labels as in FP32, %", TRAINED, "agreement", digits=2, short=""),
)

LATENCY = Table(
    "latency",
    (
        *_WHICH,
        *_SIZE,
        _p50("sed-trt, ms", OURS),
        _p50("published, ms", BASELINE),
        _times_ours("times as long: published (quartiles)", BASELINE),
        _times_ours("published, BF16 autocast", BASELINE_BF16),
        _times_ours("decoder", BASELINE, "decoder"),
        number("scout, ms", "candidates", OURS, "stages", "scout", "p50_ms"),
        _times_ours("first rejection", BASELINE, "scout"),
        number("peak memory", "memory_ratio", BASELINE, digits=2),
        number("pixel agreement, %", "candidates", OURS, "agreement", digits=2),
        *_TRAINED,
    ),
)
BASELINES_TABLE = Table(
    "how many times longer than sed-trt each baseline takes",
    (
        *_WHICH[1:],
        *_SIZE,
        _p50("sed-trt, ms", OURS),
        *(_times_ours(f"`{name}`", name) for name in BASELINES),
        *_TRAINED,
    ),
)
STREAM = Table(
    "images per second in a stream",
    (
        *_WHICH,
        *_SIZE,
        number(ONE_AT_A_TIME, "images_per_second", ONE_AT_A_TIME, digits=2),
        *(
            column
            for way in (*(f"stream, batch {batch}" for batch in STREAM_BATCHES), SIDE_BY_SIDE)
            for column in (
                number(way, "images_per_second", way, digits=2),
                quartiles("times as many (quartiles)", "stream_faster", way, digits=2),
            )
        ),
        *_TRAINED,
    ),
    lambda results: [row for row in results["results"] if "images_per_second" in row],
)


def _growth_rows(results: Results) -> Iterator[Row]:
    """A row for each bundle and vocabulary but the first, with which it is compared."""
    for row in results.get("growth", []):
        if "error" in row:
            yield row | {"categories": "→".join(map(str, row["categories"]))}
            continue
        for index, longer in enumerate(row["longer"], 1):
            yield {
                **row,
                "categories": f"{row['categories'][0]}→{row['categories'][index]}",
                "first_ms": row["p50_ms"][0],
                "last_ms": row["p50_ms"][index],
                "longer": longer,
            }


GROWTH = Table(
    "how much longer with a larger vocabulary",
    (
        *_WHICH,
        *_SIZE,
        number("smaller, ms", "first_ms"),
        number("larger, ms", "last_ms"),
        number("ratio of medians", "longer", "of_medians", digits=2),
        quartiles("ratio of rounds (quartiles)", "longer", digits=2),
        value("error", "error"),
        *_TRAINED,
    ),
    _growth_rows,
)


def candidate_rows(results: Results) -> Iterator[Row]:
    """A row for each candidate of each row, with the ratio to the bundle of that row."""
    for row in results["results"]:
        common = {
            "categories": row["categories"],
            "kept_row": row["kept"],
            "precision": of_row(results, row, "precision"),
            "backend": of_row(results, row, "backend"),
        }
        for name, figures in row["candidates"].items():
            ratio = row["ours_faster_than"].get(name, {}).get("whole")
            yield {**figures, **common, "candidate": name, "ratio": ratio}
        for name, error in row["errors"].items():
            yield {**common, "candidate": f"{name} failed", "reason": error}


def _each_once(results: Results) -> Iterator[Row]:
    """The rows of `candidate_rows`, baselines once for each vocabulary and count, then what was skipped."""
    seen = set()
    for row in candidate_rows(results):
        key = (row["categories"], row["kept_row"], row["candidate"])
        if row["candidate"] == OURS or key not in seen:
            yield row
        seen.add(key)
    for name, reason in results["skipped"].items():
        yield {"candidate": f"{name} skipped", "reason": reason}


def _alone_rows(results: Results) -> Iterator[Row]:
    for row in results["results"]:
        for name, figures in row.get("alone", {}).items():
            yield {**row, **figures, "kept_row": row["kept"], "candidate": name}


def title(row: Row) -> str:
    """The candidate of a row on a terminal, ours with precision and backend."""
    name = str(row["candidate"])
    return f"{name} {row['precision']} {row['backend']}" if name == OURS and "precision" in row else name


def _runs_on(results: Results, row: Row) -> str:
    """What ran a candidate, and in which precision; nothing where it did not run."""
    if row["candidate"] == OURS:
        return f"{row['backend']}, {row['precision']}"
    return ", ".join(results["candidates"].get(row["candidate"], ["-"]))


_CASE = (value("categories", "categories", short="names"), value("kept", "kept_row"))
_TITLED = (*_CASE, Column("candidate", lambda _results, row: title(row)))

CANDIDATES = Table(
    "milliseconds for an image",
    (
        *_CASE,
        value("candidate", "candidate"),
        Column("runs on", _runs_on),
        number("first, ms", "first_call_ms"),
        number("p50, ms", "p50_ms"),
        number("p90, ms", "p90_ms"),
        number("pixel agreement, %", "agreement", digits=2),
        value("not measured because", "reason", to_text=lambda reason: reason.replace("|", "/")[:200]),
    ),
    _each_once,
)
LATENCY_CANDIDATES = Table(
    "milliseconds for an image, and pixel agreement with published",
    (
        *_TITLED,
        number("p50", "p50_ms"),
        quartiles("ours faster", "ratio"),
        number("agree, %", "agreement", digits=2),
    ),
    candidate_rows,
)
LATENCY_ALONE = Table(
    "in a process of its own",
    (
        *_TITLED,
        number("open, ms", "open_ms"),
        number("first, ms", "first_ms"),
        number("peak MiB", "peak_mib"),
        number("GPU MiB", "device_mib"),
        value("error", "error"),
    ),
    _alone_rows,
)
