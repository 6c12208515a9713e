"""Compiled stages in a bundle's store: made by `sed-trt build`, and found again when a stage is opened."""

import io
import os
from typing import Any

from ...bundle import Bundle
from ...errors import InputError
from ..store import BuiltEngines, NetworkSummary, find_built, list_built, read_plan
from .models import compile_stage, import_stage
from .precision import Arithmetic, compiled_for

# TensorRT's names of data types, which the records of built engines use, by OpenVINO's.
_LAYER_TYPES = {"f32": "FLOAT", "f16": "HALF", "bf16": "BF16", "i8": "INT8", "u8": "UINT8"}


def compile_plan(bundle: Bundle, stage: str, chosen: Arithmetic) -> tuple[bytes, NetworkSummary]:
    """A compiled stage as bytes, which `import_stage` takes, and what it is made of.

    Raises:
        InputError: as `compile_stage`.
    """
    compiled = compile_stage(bundle, stage, chosen, None)
    plan = io.BytesIO()
    compiled.export_model(plan)
    precisions: dict[str, dict[str, int]] = {}
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    for facts in layers:
        kind = str(facts["layerType"].value).upper()
        dtype = str(facts["runtimePrecision"].value)
        counts = precisions.setdefault("CONSTANT" if kind == "CONST" else kind, {})
        name = _LAYER_TYPES.get(dtype, dtype.upper())
        counts[name] = counts.get(name, 0) + 1
    return plan.getvalue(), NetworkSummary(layers=len(layers), precisions=precisions)


class Plans:
    """The set of compiled stages that fits a bundle, the installed version and this processor.

    Attributes:
        problem: why there is none although some were built, with the command that builds one; else None.
    """

    def __init__(self, bundle: Bundle, chosen: Arithmetic) -> None:
        """Find the set; only the records are read here."""
        self.problem: str | None = None
        self._chosen = chosen
        self._built: BuiltEngines | None = None
        try:
            sets, damaged = list_built(bundle)
            unreadable = any(f"{os.sep}openvino-" in line for line in damaged)
            if not unreadable and all(each.backend != "openvino" for each in sets):
                return
            self._built = find_built(bundle, "openvino", None, compiled_for(chosen))
        except InputError as error:
            self.problem = str(error)

    def open_stage(self, stage: str, threads: int | None, runs_at_once: int) -> Any | None:
        """The `openvino.CompiledModel` of a stage; None where there is no set.

        Raises:
            InputError: the plan is missing or altered, or OpenVINO refuses it; names the command that builds
                it again.
        """
        if self._built is None:
            return None
        plan = read_plan(self._built, stage)
        try:
            return import_stage(plan, stage, self._chosen, threads, runs_at_once)
        except InputError as error:
            remedy = f"build it again with `{self._built.command} --force`"
            raise InputError(f"{self._built.plan_file(stage)}: {error}; {remedy}") from error
