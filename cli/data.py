"""`sed-trt data`: which data sets there are, and whether they are whole."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import progress_bar

if TYPE_CHECKING:
    from ..train.datasets.check import CheckReport

# Names of categories that do not occur; JSON has them all.
_SHOWN = 20

data = typer.Typer(no_args_is_help=True, help="Find and check the data sets for training and evaluation.")

Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the published sets; by default $SED_DATASETS.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@data.command()
def check(
    name: Annotated[str, typer.Argument(help="A data set of `sed-trt data list`, or an own folder.")],
    root: Root = None,
    split: Annotated[
        str | None, typer.Option(help="train or val (scenes: test); by default val.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every image and label of a set and count them; exits with 2 when anything is wrong.

    An own folder holds images/, labels/ with a PNG of the same stem for each, and names.txt.

    Example: sed-trt data check ade150 --root /data/sets
    """
    from ..errors import InputError
    from ..train.datasets.check import check_dataset
    from ..train.datasets.opening import find_dataset

    with progress_bar() as bar:
        task = bar.add_task("listing files", total=None)
        dataset = find_dataset(name, split, root)
        result = check_dataset(
            dataset,
            lambda done, total: bar.update(task, description="reading", completed=done, total=total),
        )
    if as_json:
        print(json.dumps(result.as_json(), indent=1))
    else:
        _show(result)
    faults = result.faults()
    if faults:
        more = f"; {len(faults) - 1} more kinds of fault are in the report" if len(faults) > 1 else ""
        raise InputError(f"{name}, split {result.split}: {faults[0]}{more}")


@data.command("list")
def list_sets(root: Root = None, as_json: AsJson = False) -> None:
    """Show the data sets, where their files are expected, and which are there.

    Example: sed-trt data list --root /data/sets
    """
    from ..train.datasets.opening import list_datasets

    rows = list_datasets(root)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _show_sets(rows)


def _show(result: "CheckReport") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    total = int(result.pixels.sum()) + result.ignored
    console.print(
        f"{result.name}, split {result.split} ({result.kind}): {result.images} images, "
        f"{result.labels} labels, {len(result.classes)} categories, "
        f"{result.ignored / max(total, 1):.1%} of the pixels ignored",
        soft_wrap=True,
    )
    table = Table("", "category", "pixels", "images")
    for index, (name, pixels, images) in enumerate(
        zip(result.classes, result.pixels, result.images_with, strict=True)
    ):
        if images:
            table.add_row(str(index), name, f"{pixels:,}", f"{images:,}")
    if table.row_count:
        console.print(table)
    absent = [name for name, images in zip(result.classes, result.images_with, strict=True) if not images]
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        console.print(f"in no image: {'; '.join(absent[:_SHOWN])}{more}", soft_wrap=True)
    for fault in result.faults():
        console.print(f"fault: {fault}", soft_wrap=True)
    if not result.faults():
        console.print("nothing is wrong")


def _show_sets(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{row['name']}, split {row['split']}: {row['about']}; {row['found']}")
        for path in row["expected"]:
            print(f"    {path}")
        if row["converted"]:
            print(f"    or converted labels in {row['converted']}")
