"""`sed-trt export`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import needs, progress_bar

if TYPE_CHECKING:
    from ..export import Check


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A published .pth file, or a .safetensors file of sed-trt.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.")],
    preset: Annotated[
        str | None, typer.Option(help="sed-b, sed-l or sed-tiny; by default read from the checkpoint.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of the graphs: fp32, fp16 or bf16; sums, norms and heads stay FP32 in all. "
            "int8 is for the CPU: 8-bit products in the image tower, the rest FP32."
        ),
    ] = "fp32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Export a checkpoint to a bundle and verify each stage against PyTorch in FP32 on a photo.

    Example: sed-trt export checkpoints/sed-tiny.safetensors -o bundle --precision fp16
    """
    with needs("export"):
        from ..export import VerificationError, export_bundle

    with progress_bar() as bar:
        task = bar.add_task("reading the checkpoint", total=None)
        try:
            checks = export_bundle(
                checkpoint,
                output,
                preset,
                progress=lambda step, done, total: bar.update(
                    task, description=step, completed=done, total=total
                ),
                precision=precision,
            )
        except VerificationError as error:
            show(error.checks, as_json)
            raise
    show(checks, as_json)
    if not as_json:
        print(f"bundle: {output}")


def show(checks: "list[Check]", as_json: bool) -> None:
    """Print the checks as a table or as JSON."""
    from rich.console import Console
    from rich.table import Table

    if as_json:
        print(json.dumps([{**asdict(check), "passed": check.passed} for check in checks], indent=1))
        return
    table = Table("stage", "output", "error", "limit", "measured as", "")
    for check in checks:
        verdict = "ok" if check.passed else "[bold red]over"
        table.add_row(
            check.stage, check.output, f"{check.error:.2g}", f"{check.limit:.2g}", check.measure, verdict
        )
    Console().print(table)
