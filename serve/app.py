"""The application: all routes, the page, health, metrics, and how errors are answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..errors import InputError
from .answers import SUMMARY_HEADER
from .catalogue import bundle_routes, example_routes, vocabulary_routes
from .description import description_page, description_style
from .http_errors import HttpError, error_response
from .keys import KEY_HEADER, KeyCheck
from .metrics import CONTENT_TYPE, TimedRequests
from .open_inference import open_inference_routes
from .segment import image_routes
from .service import Service

_PAGE = Path(__file__).with_name("page")
_DESCRIPTION = (
    "Open-vocabulary segmentation: every pixel gets one of the categories that you name. A server that asks "
    f"for an API key takes it in the header {KEY_HEADER}, or as Authorization: Bearer."
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(
    service: Service,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    examples: Path | None = None,
    failed: Callable[[BaseException], object] = lambda error: None,
) -> FastAPI:
    """The application of a service.

    Args:
        service: what answers; it is closed with the application.
        keys: API keys; with none, anybody may do anything.
        origins: web sites, such as "https://example.org", whose pages may use the server.
        examples: folder of example images, with their categories in vocabulary.txt.
        failed: called with the error when the server cannot become ready.

    Raises:
        InputError: the examples' vocabulary cannot be read.
    """
    app = FastAPI(
        title="sed-trt",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service, failed),
    )
    for router in (
        image_routes(service),
        vocabulary_routes(service),
        bundle_routes(service),
        example_routes(examples),
        open_inference_routes(service),
    ):
        app.include_router(router)
    _add_state_routes(app, service)
    _add_pages(app)
    _add_error_handlers(app, service)
    app.add_middleware(KeyCheck, keys=keys)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["DELETE", "GET", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", KEY_HEADER],
            expose_headers=["Retry-After", SUMMARY_HEADER],
        )
    app.add_middleware(_EveryAnswer)
    # The outermost, since it counts every answer.
    app.add_middleware(TimedRequests, metrics=service.metrics)
    return app


def _lifespan(
    service: Service, failed: Callable[[BaseException], object]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        def report(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                failed(error)

        warm_up = asyncio.create_task(service.make_ready())
        warm_up.add_done_callback(report)
        sweep = asyncio.create_task(service.drop_expired())
        yield
        service.stop_warm_up()
        warm_up.cancel()
        sweep.cancel()
        await asyncio.to_thread(service.close)

    return lifespan


def _add_state_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["server"])
    async def healthz() -> JSONResponse:
        """Whether the server works: 503 when its engines are broken and it should be started again."""
        if await service.healthy():
            return JSONResponse({"status": "ok"})
        return error_response(503, "the engines are broken; start the server again")

    @app.get("/readyz", tags=["server"])
    async def readyz() -> JSONResponse:
        """Whether the server should get requests: 503 until warm-up is over."""
        if service.ready:
            return JSONResponse({"status": "ready"})
        return error_response(503, "the server is warming up", {"Retry-After": "5"})

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """The metrics for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    page = StaticFiles(directory=_PAGE, check_dir=False)
    app.mount("/page", page)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return await page.get_response("index.html", request.scope)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(description_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    async def docs_style() -> Response:
        return Response(description_style(), media_type="text/css")


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    @app.exception_handler(HttpError)
    async def answer_problem(request: Request, problem: HttpError) -> JSONResponse:
        return error_response(problem.status, problem.line, problem.headers)

    @app.exception_handler(InputError)
    async def answer_input_error(request: Request, error: InputError) -> JSONResponse:
        return error_response(422, service.line(error))

    @app.exception_handler(RequestValidationError)
    async def answer_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(422, "the request does not fit the API's description, see /docs")

    @app.exception_handler(HTTPException)
    async def answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return error_response(error.status_code, f"{request.url.path[:80]}: {error.detail}", headers)

    @app.exception_handler(Exception)
    async def answer_other_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "the server failed; its log says why")


class _EveryAnswer:
    """Middleware that tells browsers to load nothing from elsewhere, and answers what uvicorn cancels.

    That is what is still under way when the server stops and the time for it is over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add headers to its answer."""
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = [(name.lower().encode(), value.encode()) for name, value in _SECURITY_HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except asyncio.CancelledError:
            if scope["type"] != "http" or started:
                raise
            await error_response(503, "the server stops")(scope, receive, with_headers)
