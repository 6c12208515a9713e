"""The published network in PyTorch alone, without any bundle: a row for each size of vocabulary.

    python -m sed_trt.benchmarks.pytorch_check sed-b.pth sed-b 150,847 32 10 cuda results.json

The arguments are a checkpoint, its preset, sizes of vocabularies, the number of categories that are kept,
rounds, the device ("cuda" or "cpu"), and the results file, which is written after each row.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import replacing
from ..model import preset_named
from ..model.text import templates_of
from ..runtime import Vocabulary
from .results_file import one_line, results_text, setting
from .speed.candidates import Candidate, Subject, random_text
from .speed.opening import BaselineOpener
from .speed.rounds import FAILURES, Case, compare, scene_images

# FP32, and FP16 autocast where there is a GPU.
NAMES = ("published", "published-autocast")


def measure(subject: Subject, preset: str, sizes: Sequence[int], kept: int, rounds: int, file: Path) -> None:
    """Time PyTorch with vocabularies of `sizes`, with `kept` categories left after each rejection.

    Raises:
        InputError: the preset is unknown, PyTorch cannot run on the device at all, or the file cannot be
            written.
    """
    network = preset_named(preset)
    opener = BaselineOpener(subject)
    candidates: list[Candidate] = []
    skipped: dict[str, str] = {}
    for name in NAMES:
        try:
            candidates.append(opener.open(name))
        except FAILURES as error:
            skipped[name] = one_line(error)
    if not candidates:
        raise InputError("; ".join(skipped.values()))
    content: dict[str, Any] = {
        **setting(),
        "preset": preset,
        "precision": None,
        "backend": None,
        "rounds": rounds,
        "candidates": {each.name: [each.runs_on, each.precision] for each in candidates},
        "skipped": skipped,
        "results": [],
    }
    for size in sizes:
        text = random_text(size, len(templates_of(network)), network.embed_dim)
        vocabulary = Vocabulary(tuple(f"category {number}" for number in range(size)), text)
        case = Case(vocabulary, str(kept), scene_images(1, network.image_size))
        compared = compare(case, None, candidates, rounds, lambda _what, _done, _total: None)
        content["results"].append(compared.row())
        with replacing(file) as temporary:
            temporary.write_text(results_text("latency", content), encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Run the command line that the module's documentation describes.

    Raises:
        InputError: as `measure`.
    """
    checkpoint, preset, sizes, kept, rounds, device, file = arguments
    subject = Subject("", checkpoint, backend=None, device=device, threads=None)
    measure(subject, preset, [int(size) for size in sizes.split(",")], int(kept), int(rounds), Path(file))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
