"""The log of a run: JSON lines, TensorBoard, and reports to the caller."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ..errors import InputError
from ..files import is_file, replacing
from ..runtime.result import colours
from .checkpoint import Phase, Position, RunFolder
from .config import TrainConfig

# Called with phase, steps done, steps in all, and the mean metrics since the last report.
Report = Callable[[str, int, int, dict[str, float]], None]

MAX_IMAGE_SIDE = 512


class MetricsLog:
    """Collects the metrics of every step and logs their means every `log_every` steps.

    Every process of a run has one; that of process 0 alone writes.
    """

    def __init__(
        self,
        run: RunFolder,
        config: TrainConfig,
        start: Position,
        accelerator: Accelerator,
        report: Report | None,
    ) -> None:
        """Open the log and drop its lines after `start`: their steps are trained again.

        Args:
            run: the folder, which exists.
            config: the run's settings.
            start: where the run starts or resumes.
            accelerator: of the run, with TensorBoard as its tracker.
            report: called with every line of the log; None means no reports.

        Raises:
            InputError: the log cannot be written.
        """
        self.config, self.accelerator, self.report = config, accelerator, report
        self.is_main = accelerator.is_main_process
        self.window: list[dict[str, float]] = []
        self.window_started = self.started = time.monotonic()
        if not self.is_main:
            return
        # The time before an interruption counts too.
        self.started -= drop_lines_after(run.log, start)
        try:
            self.file = run.log.open("a", encoding="utf-8")
            # TensorBoard hides what it has of later steps.
            purge = {"purge_step": self.total_steps(start) + 1}
            accelerator.init_trackers(run.tensorboard.name, init_kwargs={"tensorboard": purge})
        except OSError as error:
            raise InputError(f"{run.path}: cannot be written ({error.strerror}); make room there") from error

    def start_phase(self) -> None:
        """Start measuring a phase's speed."""
        self.window.clear()
        self.window_started = time.monotonic()

    def is_due(self, step: int, steps: int) -> bool:
        """Whether a line is logged after `step` of the `steps` steps of a phase."""
        return step % self.config.log_every == 0 or step == steps

    def add(self, position: Position, steps: int, samples: int, metrics: dict[str, float]) -> None:
        """Take in the metrics of a step, and log the means where a line is due.

        Args:
            position: after the step.
            steps: of the phase in all.
            samples: of the step.
            metrics: of the step; one that only some steps have is the mean over those.

        Raises:
            InputError: the log cannot be written.
        """
        self.window.append(metrics)
        if not self.is_due(position.step, steps):
            return
        means = {name: fmean(each[name] for each in self.window if name in each) for name in metrics}
        now = time.monotonic()
        means["images_per_second"] = samples * len(self.window) / (now - self.window_started)
        device = self.accelerator.device
        if device.type == "cuda":
            means["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        self.window_started = now
        self.window.clear()
        if not self.is_main:
            return
        label = position.phase.label
        line = {"phase": label, "step": position.step, "seconds": round(now - self.started, 1)}
        numbers = {name: value if math.isfinite(value) else None for name, value in means.items()}
        with self._writing():
            self.file.write(json.dumps(line | numbers) + "\n")
            self.file.flush()
            named = {f"{label}/{name}": value for name, value in means.items()}
            self.accelerator.log(named, self.total_steps(position))
        if self.report is not None:
            self.report(label, position.step, steps, means)

    def add_image(self, position: Position, image: np.ndarray) -> None:
        """Show an image, RGB uint8 (H, W, 3), in TensorBoard.

        Raises:
            InputError: the log cannot be written.
        """
        name = f"{position.phase.label}/image, truth, prediction"
        board = self.accelerator.get_tracker("tensorboard")
        with self._writing():
            board.log_images({name: image[None]}, self.total_steps(position), dataformats="NHWC")

    def total_steps(self, position: Position) -> int:
        """Steps done in all phases together: TensorBoard's axis."""
        return sum((self.config.text_steps, self.config.clip_steps)[: position.phase]) + position.step

    def close(self) -> None:
        """Close the log's files."""
        if self.is_main:
            with self._writing():
                self.file.close()
                for tracker in self.accelerator.trackers:
                    tracker.finish()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn the operating system's errors into one line."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.file.name}: cannot be written ({error.strerror}); make room and go on with --resume"
            ) from error


def drop_lines_after(log: Path, start: Position) -> float:
    """Remove the lines of a log that are of steps after `start`, and an incomplete last line.

    Returns:
        The seconds that the run had taken according to the last line that is kept.

    Raises:
        InputError: the log cannot be written.
    """
    if not is_file(log):
        return 0.0
    kept, seconds = [], 0.0
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            continue
        if Position(Phase[line["phase"].upper()], line["step"]) <= start:
            kept.append(text + "\n")
            seconds = line["seconds"]
    with replacing(log) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    return seconds


def side_by_side(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, categories: np.ndarray, count: int
) -> np.ndarray:
    """An image, its labels and a prediction beside each other.

    Args:
        image: RGB uint8 (S, S, 3).
        truth: positions in `categories`, int (R, R); -1, where ignored, is black.
        prediction: positions in `categories`, int (h, h).
        categories: which of all names the positions stand for, int (T,).
        count: of all names; each has the same colour in every image.

    Returns:
        RGB uint8 (D, 3 D, 3), D the smaller of S and 512.
    """
    side = min(MAX_IMAGE_SIDE, image.shape[0])
    palette = np.concatenate([colours(count)[categories], np.zeros((1, 3), dtype=np.uint8)])
    panels = [Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)]
    panels += [
        Image.fromarray(palette[labels]).resize((side, side), Image.Resampling.NEAREST)
        for labels in (truth, prediction)
    ]
    return np.concatenate([np.asarray(panel) for panel in panels], axis=1)
