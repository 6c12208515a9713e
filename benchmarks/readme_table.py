"""Results files as Markdown tables, as the README shows them."""

import json
import sys
from pathlib import Path
from typing import Any

from ..atomic import replacing


def markdown_table(results: dict[str, Any]) -> str:
    """The table of a results file of `sed-trt evaluate`."""
    lines = [
        "| categories | rejection | mIoU seen | mIoU held-out | pixel accuracy | alive after each point |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["results"]:
        figures = " | ".join(f"{row[key]:.1f}" for key in ("miou_seen", "miou_held_out", "pixel_accuracy"))
        alive = " → ".join(f"{count:.0f}" for count in row["kept"])
        lines.append(f"| {row['categories']} | {row['rejection']} | {figures} | {alive} |")
    return "\n".join(lines)


def update(readme: Path) -> None:
    """Put every results file that `readme` names between its markers."""
    text = readme.read_text(encoding="utf-8")
    opening, closing = "<!-- results: ", "<!-- end of results -->"
    head, *parts = text.split(opening)
    for part in parts:
        file, rest = part.split(" -->\n", 1)
        _, after = rest.split(closing, 1)
        results = json.loads((readme.parent / file).read_text(encoding="utf-8"))
        head += f"{opening}{file} -->\n{markdown_table(results)}\n{closing}{after}"
    with replacing(readme) as temporary:
        temporary.write_text(head, encoding="utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1]))
