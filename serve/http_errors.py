"""Errors as answers: a status and the house's one clear line, without paths of the server."""

import re
from collections.abc import Iterable

from fastapi.responses import JSONResponse

# Nobody reads this answer: nginx's status for a client that closed the connection.
CLIENT_GONE = 499

_PATH = re.compile(r"(?<![\w.~-])(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][\w.@+-]+)+[/\\]?")


class HttpError(Exception):
    """An answer other than the one that was asked for: its status and its line."""

    def __init__(self, status: int, line: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = headers


class BusyError(HttpError):
    """The server has as much work as it takes; the client should send the request again later."""

    def __init__(self, line: str, retry_after_s: int) -> None:
        super().__init__(429, f"{line}; try again in {retry_after_s} s", {"Retry-After": str(retry_after_s)})


def error_response(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer `{"error": line}`."""
    return JSONResponse({"error": line}, status, headers)


def public_line(line: str, folders: Iterable[str]) -> str:
    """A line as clients may see it: of every path only the last part is left.

    `folders` are the bundles' as the command line gave them, which may be relative.
    """
    for folder in folders:
        line = line.replace(f"{folder}/", "")
    return _PATH.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], line)
