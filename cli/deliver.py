"""Results of a command: printed as a table or JSON, and written to a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def deliver(
    kind: str,
    content: dict[str, Any],
    show: Callable[[str, dict[str, Any]], None],
    output: Path | None,
    as_json: bool,
) -> None:
    """Print the content of a results file, as JSON or with `show`, and write it to `output` if that is given.

    Raises:
        InputError: the file cannot be written.
    """
    from ..atomic import replacing
    from ..benchmarks.results_file import results_text

    text = results_text(kind, content)
    # A disk that fills up meanwhile must not take the results with it.
    if as_json:
        print(text, end="")
    else:
        show(kind, content)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(text, encoding="utf-8")
