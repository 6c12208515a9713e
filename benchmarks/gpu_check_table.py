"""The outcome of the check as a table."""

from typing import Any

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

# Of a file or pipe, which takes lines of any length.
WIDTH = 190
_HEADERS = ("model", "precision", "candidate", "built", "opened", "agree %", "p50 ms", "p90 ms")
_NUMBERS = _HEADERS[5:]
# Characters between two columns, and the fewest of the last one.
_BETWEEN = 3
_LEAST = 24
# Nothing is loaded from disk or resized here.
_LEFT_OUT = ("load", "resize")


def show(content: dict[str, Any]) -> None:
    """Print the machine and a row for each candidate."""
    machine = content["hardware"]
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    print(f"{content['device']}, CPU {machine['cpu']} ({machine['cpu_cores']} cores)")
    if machine["gpu"] is None:
        print(f"no GPU: {machine['gpu_missing']}")
    print(", ".join(f"{name} {number}" for name, number in content["versions"].items() if number))
    rows = [_row(record) for record in content["candidates"]]
    table = Table(show_edge=False, pad_edge=False)
    left = console.width
    for column, header in enumerate(_HEADERS):
        width = max([len(header), *(len(row[column]) for row in rows)])
        justify: JustifyMethod = "right" if header in _NUMBERS else "left"
        table.add_column(header, justify=justify, width=width, no_wrap=True)
        left -= width + _BETWEEN
    # A terminal shows long errors whole; elsewhere a row is a line, and the results file has the rest.
    single = not console.is_terminal
    table.add_column("ms per stage, or why not", width=max(left, _LEAST), no_wrap=single, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for record in content["exports"]:
        if record["error"]:
            console.print(Text(f"export {record['name']}: {record['error']}"))


def summary(record: dict[str, Any]) -> str:
    """One candidate or export in one line."""
    text = f"{record['name']}: {record['state']} after {record['seconds']:.0f} s"
    if latency := record.get("latency"):
        text += f", {latency['p50_ms']:.1f} ms"
    return f"{text} ({record['error']})" if record["error"] else text


def _row(record: dict[str, Any]) -> list[Text]:
    candidate = " ".join(filter(None, (record["backend"], record["target"])))
    cells = [record["model"], record["precision"], candidate, _yes(record["built"]), _yes(record["opened"])]
    latency = record.get("latency")
    if latency is None:
        cells += ["", "", "", f"{record['state']}: {record['error']}"]
    else:
        shown = (item for item in latency["stages_ms"].items() if item[0] not in _LEFT_OUT)
        stages = " ".join(f"{name} {value:.1f}" for name, value in shown)
        last = f"{stages}; then {record['error']}" if record["error"] else stages
        cells += [_agreement(record), f"{latency['p50_ms']:.1f}", f"{latency['p90_ms']:.1f}", last]
    # Brackets in error messages are no markup.
    style = "red" if latency is None and record["state"] != "skipped" else ""
    return [Text(cell, style) for cell in cells]


def _agreement(record: dict[str, Any]) -> str:
    if record.get("reference"):
        return "reference"
    if record["agreement"] is None:
        return "?"
    return f"{record['agreement']:.2f}" + (" WRONG" if record["right"] is False else "")


def _yes(value: bool | None) -> str:
    return {None: "", True: "yes", False: "no"}[value]
