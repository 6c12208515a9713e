"""Speed beside accuracy: the mIoU of a trained network, by precision and backend, in rows of latency.

The networks whose speed counts have known weights and recognise nothing; sed-tiny is trained.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .columns import Results

# The default policy, as results name it.
POLICY = "topk:8"
# The key that joined rows have, with "miou" and "agreement".
TRAINED = "trained"
# Kinds of results that have the mIoU of one network on scenes.
SCORES_KINDS = ("scores", "parity")


def with_scores(latency: Results, scores: Iterable[Results]) -> Results:
    """Latency results in which rows have the mIoU of a trained network under `TRAINED`.

    It is that of the default policy, in the row's precision and on its backend; rows without such scores stay
    as they are. The agreement is with the labels of the network that `evaluate --against` names.

    Args:
        latency: the results.
        scores: results of `sed-trt evaluate` on scenes.
    """
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for file in scores:
        for key, figures in _scores(file):
            # Figures with an agreement are worth more than those of the reference itself.
            known[key] = {**known.get(key, {}), **figures}

    def joined(row: Mapping[str, Any]) -> Mapping[str, Any]:
        key = tuple(row.get(name) or latency[name] for name in ("precision", "backend"))
        return {**row, TRAINED: known[key]} if key in known else row

    rows = {name: [joined(row) for row in latency.get(name, [])] for name in ("results", "growth")}
    return {**latency, **rows}


def _scores(file: Results) -> Iterator[tuple[tuple[str, str], Mapping[str, Any]]]:
    """Precision and backend, and the figures of the default policy on the first vocabulary."""
    for row in file["results"]:
        sides = {side: row.get(side, row) for side in ("source", "against") if side in file}
        if sides["source"]["rejection"] != POLICY:
            continue
        for side, scores in sides.items():
            figures = {"miou": scores["miou"]}
            if side == "source" and "agreement" in row:
                figures["agreement"] = row["agreement"]
            yield (file[side]["precision"], file[side]["runs_on"]), figures
        return
