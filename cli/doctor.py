"""`sed-trt doctor`: versions, backends and devices of this machine, and what to install."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from ..engines.packages import DEVICE_PACKAGES, device_package
from ..errors import InputError

_NO_EXTRA = "base"
# Extras that bring nothing where there is no GPU, and those for work that a few machines do.
_GPU_EXTRAS = ("gpu", "rtx", "tensorrt")
_RARE_EXTRAS = ("build", "layers")


def doctor(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle folder whose files are checked too.", show_default=False)
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the versions, backends and devices of this machine, and what to install for missing ones.

    Example: sed-trt doctor bundle
    """
    facts: dict[str, Any] = {
        "sed_trt": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": _packages(),
        "onnxruntime_providers": _providers(),
        "openvino": _openvino(),
        "gpus": _gpus(),
        "device_package": device_package(),
    }
    facts["backends"] = _backends(facts["gpus"])
    facts["advice"] = _advice(facts["packages"], facts["gpus"])
    if broken := facts["backends"]["onnxruntime"]:
        facts["advice"].append(broken)
    if bundle is not None:
        facts["bundle"] = _checked_bundle(bundle)
    if json_output:
        typer.echo(json.dumps(facts, indent=1))
    else:
        _print_table(facts)


def _packages() -> dict[str, dict[str, str | None]]:
    """By extra, the packages that sed-trt's metadata asks for and their installed versions."""
    packages: dict[str, dict[str, str | None]] = {}
    try:
        requirements = importlib.metadata.requires("sed-trt") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if name != "sed-trt":
            packages.setdefault(extra[1] if extra else _NO_EXTRA, {})[name] = _version(name)
    return packages


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    from ..engines.ort.session import library

    try:
        return list(library().get_available_providers())
    except InputError:
        return []


def _openvino() -> dict[str, str]:
    """What OpenVINO says of this processor and its self-tests; empty where OpenVINO does not work."""
    from ..engines.openvino.library import processor, self_test, version

    try:
        tests = {precision: self_test(precision).outcome for precision in ("bf16", "int8")}
        return {"version": version(), "processor": processor(), **tests}
    except InputError:
        return {}


def _backends(gpus: list[str]) -> dict[str, str | None]:
    """By backend, why it cannot be used here; None if it can."""
    from ..engines.backends import BACKENDS, unavailable_reason

    reasons = {backend: unavailable_reason(backend) for backend in BACKENDS}
    if not gpus:
        reasons["onnxruntime-cuda"] = reasons["onnxruntime-cuda"] or "nvidia-smi finds no GPU"
    return reasons


def _gpus() -> list[str]:
    """One line per NVIDIA GPU: name, driver, memory, compute capability."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    try:
        answer = subprocess.run(
            [command, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def _advice(packages: dict[str, dict[str, str | None]], gpus: list[str]) -> list[str]:
    advice = []
    if not packages:
        advice.append("sed-trt is not installed as a package: run `pip install -e .` in its folder")
    for extra, versions in packages.items():
        missing = [name for name, version in versions.items() if version is None]
        if extra == "cpu" and _version("onnxruntime-gpu"):
            # The GPU build stands in for it, and the two must not be installed together.
            missing = []
        if extra in _GPU_EXTRAS and device_package():
            # Either of the packages that reach a GPU will do.
            missing = [name for name in missing if name not in DEVICE_PACKAGES.values()]
        if missing and extra not in _RARE_EXTRAS and (gpus or extra not in _GPU_EXTRAS):
            target = "." if extra == _NO_EXTRA else f".[{extra}]"
            first = "pip uninstall -y onnxruntime && " if extra == "gpu" and _version("onnxruntime") else ""
            advice.append(
                f"missing {', '.join(missing)}: in sed-trt's folder, {first}pip install -e '{target}'"
            )
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        advice.append(
            "onnxruntime and onnxruntime-gpu overwrite each other's files: in sed-trt's folder, "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install -e '.[gpu]' (no GPU: '.[cpu]')"
        )
    return advice


def _checked_bundle(path: Path) -> dict[str, Any]:
    """What the manifest says, after every file's sha256 was checked."""
    from ..bundle import Bundle

    bundle = Bundle.open(path)
    for file in bundle.manifest.files:
        bundle.verified(file)
    manifest = bundle.manifest
    return {
        "path": str(path),
        "preset": manifest.preset,
        "precision": manifest.precision,
        "format": manifest.format,
        "files": {name: record.bytes for name, record in manifest.files.items()},
    }


def _print_table(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name in ("sed_trt", "python", "platform", "cpus"):
        table.add_row(name, str(facts[name]))
    for extra, versions in facts["packages"].items():
        listed = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
        table.add_row(f"packages ({extra})", listed)
    table.add_row("onnxruntime providers", ", ".join(facts["onnxruntime_providers"]) or "none")
    if found := facts["openvino"]:
        table.add_row("openvino", f"{found['version']} on {found['processor']}")
        for precision in ("bf16", "int8"):
            table.add_row(f"openvino {precision} product", found[precision])
    for backend, reason in facts["backends"].items():
        table.add_row(f"backend {backend}", f"not usable: {reason}" if reason else "usable")
    table.add_row("NVIDIA GPUs", "\n".join(facts["gpus"]) or "none found by nvidia-smi")
    table.add_row("GPUs are reached through", facts["device_package"] or "neither pycuda nor cuda-bindings")
    if "bundle" in facts:
        bundle = facts["bundle"]
        size = sum(bundle["files"].values()) / 1e6
        kind = f"{bundle['preset']}, {bundle['precision']}, {size:.1f} MB"
        table.add_row("bundle", f"{bundle['path']}: {kind}, intact")
    table.add_row("advice", "\n".join(facts["advice"]) or "nothing is missing")
    Console(markup=False, highlight=False).print(table)
