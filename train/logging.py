"""What a run tells about itself: JSON lines, TensorBoard, and reports to whoever watches."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ..errors import InputError
from ..files import is_file, replacing
from ..runtime.result import colours
from .checkpoint import PHASES, Point, RunFolder
from .config import TrainConfig

LONGEST = 512


def side_by_side(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, categories: np.ndarray, count: int
) -> np.ndarray:
    """Draw the three beside each other.

    Args:
        image: RGB uint8 (S, S, 3).
        truth: positions in `categories`, int (R, R); -1, where ignored, is black.
        prediction: positions in `categories`, int (h, h).
        categories: which of all names the positions stand for, int (T,).
        count: of all names; each has the same colour in every picture.

    Returns:
        RGB uint8 (D, 3 D, 3), D the smaller of S and 512.
    """
    side = min(LONGEST, image.shape[0])
    palette = colours(count)[categories]
    black = np.zeros((1, 3), dtype=np.uint8)
    table = np.concatenate([palette, black])
    parts = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)]
    parts += [
        Image.fromarray(table[labels]).resize((side, side), Image.Resampling.NEAREST)
        for labels in (truth, prediction)
    ]
    return np.concatenate([np.asarray(part) for part in parts], axis=1)


# Phase, steps done, steps in all, mean metrics since the last report.
Report = Callable[[str, int, int, dict[str, float]], None]


class Journal:
    """Collects the metrics of every step and tells their means every `log_every` steps.

    Only process 0 of a run writes; in the others it is silent.
    """

    def __init__(
        self,
        run: RunFolder,
        config: TrainConfig,
        resumed: Point,
        seconds: float,
        accelerator: Accelerator,
        report: Report | None,
    ) -> None:
        """Open the log; lines after `resumed`, left by steps that are done again, are dropped.

        Args:
            run: the folder, which exists.
            config: the run's settings.
            resumed: where the run goes on.
            seconds: how long it had taken until then.
            accelerator: of the run; its process 0 writes and reports.
            report: called with every line of the log; None means no reports.

        Raises:
            InputError: the log cannot be written.
        """
        self.config, self.device, self.report = config, accelerator.device, report
        self.speaks = accelerator.is_main_process
        self.window: list[dict[str, float]] = []
        self.started = time.monotonic() - seconds
        self.window_started = time.monotonic()
        if not self.speaks:
            return
        drop_lines_after(run.log, resumed)
        try:
            self.log = run.log.open("a", encoding="utf-8")
            done = self.total_steps(resumed.phase, resumed.step)
            self.board = SummaryWriter(str(run.tensorboard), purge_step=done + 1)
        except OSError as error:
            raise InputError(f"{run.path}: cannot be written ({error.strerror}); make room there") from error

    @property
    def seconds(self) -> float:
        """How long the run has taken, in all its sittings."""
        return time.monotonic() - self.started

    def is_due(self, step: int, steps: int) -> bool:
        """Whether step number `step`, from 1, is one that is told."""
        return step % self.config.log_every == 0 or step == steps

    def begin(self) -> None:
        """Start measuring a phase's speed."""
        self.window.clear()
        self.window_started = time.monotonic()

    def note(self, phase: int, step: int, steps: int, samples: int, metrics: dict[str, float]) -> None:
        """Take in the metrics of step number `step`, from 1, of a phase; tell the means where it is due.

        Of metrics that only the last step has, that one counts.

        Raises:
            InputError: the log cannot be written.
        """
        self.window.append(metrics)
        if not self.is_due(step, steps):
            return
        means = {name: mean([each[name] for each in self.window if name in each]) for name in metrics}
        now = time.monotonic()
        means["images_per_second"] = samples * len(self.window) / (now - self.window_started)
        if self.device.type == "cuda":
            means["gpu_memory_mib"] = torch.cuda.max_memory_allocated(self.device) / 2**20
        self.window_started = now
        self.window.clear()
        if not self.speaks:
            return
        line = {"phase": PHASES[phase], "step": step, "seconds": round(self.seconds, 1)}
        written = {name: value if math.isfinite(value) else None for name, value in means.items()}
        with self.writing():
            self.log.write(json.dumps(line | written) + "\n")
            self.log.flush()
            for name, value in means.items():
                self.board.add_scalar(f"{PHASES[phase]}/{name}", value, self.total_steps(phase, step))
        if self.report is not None:
            self.report(PHASES[phase], step, steps, means)

    def picture(self, phase: int, step: int, image: np.ndarray) -> None:
        """Show a picture, RGB uint8 (H, W, 3), in TensorBoard; only where the journal speaks."""
        name = f"{PHASES[phase]}/image, truth, prediction"
        with self.writing():
            self.board.add_image(name, image, self.total_steps(phase, step), dataformats="HWC")

    def total_steps(self, phase: int, step: int) -> int:
        """Steps done in all phases together: TensorBoard's axis."""
        return sum((self.config.text_steps, self.config.clip_steps)[:phase]) + step

    def close(self) -> None:
        """Close the log's files."""
        if self.speaks:
            with self.writing():
                self.log.close()
                self.board.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the operating system's errors into one line."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.log.name}: cannot be written ({error.strerror}); make room and go on with --resume"
            ) from error


def mean(values: list[float]) -> float:
    """The mean of numbers, not finite if one is not."""
    return sum(values) / len(values)


def drop_lines_after(log: Path, point: Point) -> None:
    """Remove the lines of a log that tell of later steps, and what a sudden end left of a line.

    Raises:
        InputError: the log cannot be written.
    """
    if not is_file(log):
        return
    kept = []
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            continue
        if Point(PHASES.index(line["phase"]), line["step"]) <= point:
            kept.append(text + "\n")
    with replacing(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
