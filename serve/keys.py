"""API keys: who may use the server, and what anybody may see."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .http_errors import error_response

KEY_HEADER = "X-API-Key"
# The page, whose files hold no secret, and what asks whether the server works.
_OPEN = frozenset(
    ("/", "/healthz", "/readyz", "/docs", "/docs.css", "/openapi.json", "/v2/health/live", "/v2/health/ready")
)
_OPEN_FOLDER = "/page/"


class KeyCheck:
    """Middleware that answers 401 to requests without one of the keys, if there are any."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not self._digests or _is_open(scope["path"]) or self._knows(scope):
            await self._app(scope, receive, send)
            return
        refusal = error_response(
            401,
            f"API key: is missing or unknown; send one in the header {KEY_HEADER}",
            {"WWW-Authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get(KEY_HEADER) or (token.strip() if scheme.lower() == "bearer" else "")
        digest = _digest(given)
        # All are compared, so that the time tells neither a key's content nor its position.
        return any([hmac.compare_digest(digest, known) for known in self._digests])


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
