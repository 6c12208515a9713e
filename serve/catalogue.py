"""The routes that tell what is served and manage vocabularies: bundles, vocabularies, examples."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from ..files import IMAGE_SUFFIXES, is_file
from ..runtime import read_vocabulary
from ..runtime.rejection import FORMS
from ..runtime.vocabulary import checked_names, published_names
from .fields import (
    ERRORS,
    BundlesAnswer,
    ExamplesAnswer,
    VocabulariesAnswer,
    VocabularyAnswer,
    VocabularyFields,
    checked_fields,
)
from .http_errors import HttpError
from .owner import Owner
from .service import Service
from .uploads import JSON_TYPE, json_value, read_body

_VOCABULARY_FILE = "vocabulary.txt"
_VOCABULARY_BODY = {
    "requestBody": {
        "content": {JSON_TYPE: {"schema": VocabularyFields.model_json_schema()}},
        "required": True,
    }
}


def bundle_routes(service: Service) -> APIRouter:
    """The route that lists bundles and limits."""
    router = APIRouter(prefix="/v1", tags=["bundles"])
    settings = service.settings

    @router.get("/bundles", response_model=BundlesAnswer)
    async def list_bundles() -> Any:
        """What is served, the default first, and the limits of requests."""
        return {
            "bundles": [_description(owner) for owner in service.owners.values()],
            "limits": {
                "bytes": settings.max_bytes,
                "pixels": settings.max_pixels,
                "categories": settings.max_categories,
                "images_kept": settings.images_kept,
                "image_ttl_s": settings.image_ttl_s,
            },
            "policies": FORMS.split(", "),
        }

    return router


def vocabulary_routes(service: Service) -> APIRouter:
    """The routes of vocabularies."""
    router = APIRouter(prefix="/v1/vocabularies", tags=["vocabularies"], responses={422: ERRORS[422]})
    settings = service.settings

    @router.get("", response_model=VocabulariesAnswer)
    async def list_vocabularies() -> Any:
        """The vocabularies that a request can name."""
        registered = service.registry.registered
        return {
            "vocabularies": [{"name": name, "categories": len(names)} for name, names in registered.items()],
            "published": published_names(),
        }

    @router.get("/{name}", response_model=VocabularyAnswer, responses={404: ERRORS[404]})
    async def show_vocabulary(name: str) -> Any:
        """The categories of a registered or published vocabulary."""
        return {"name": name, "categories": service.registry.names_of(name)}

    @router.put(
        "/{name}",
        responses={200: {"model": VocabularyAnswer}, 201: {"model": VocabularyAnswer}, **ERRORS},
        openapi_extra=_VOCABULARY_BODY,
    )
    async def put_vocabulary(name: str, request: Request) -> Response:
        """Register categories, and answer when they are embedded. The body may be a list alone."""

        async def put(categories: list[str]) -> Response:
            names = await asyncio.to_thread(checked_names, categories)
            created = await service.registry.put(name, names)
            return JSONResponse({"name": name, "categories": list(names)}, 201 if created else 200)

        with service.requests.place():
            content = json_value(await read_body(request, settings.max_bytes, settings.timeout_s))
            fields = content if isinstance(content, dict) else {"categories": content}
            categories = checked_fields(VocabularyFields, fields).categories
            for owner in service.owners.values():
                service.check_count(owner, categories)
            return await service.answered(request, put(categories), settings.embed_timeout_s)

    @router.delete("/{name}", status_code=204, responses={404: ERRORS[404], 409: ERRORS[409]})
    async def delete_vocabulary(name: str) -> Response:
        """Forget a registered vocabulary."""
        service.registry.delete(name)
        return Response(status_code=204)

    return router


def example_routes(folder: Path | None) -> APIRouter:
    """The routes of the images of a folder, whose categories are in its file vocabulary.txt.

    Raises:
        InputError: that file is not UTF-8 text, or holds no names.
    """
    router = APIRouter(prefix="/v1/examples", tags=["examples"], responses={422: ERRORS[422]})
    images: dict[str, Path] = {}
    vocabulary: list[str] = []
    if folder is not None:
        images = {
            file.name: file
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in IMAGE_SUFFIXES and is_file(file)
        }
        if is_file(folder / _VOCABULARY_FILE):
            vocabulary = read_vocabulary(folder / _VOCABULARY_FILE)

    @router.get("", response_model=ExamplesAnswer)
    async def list_examples() -> Any:
        """Images to try the server on, and names of what is in them."""
        return {
            "images": [{"name": name, "url": f"/v1/examples/{name}"} for name in images],
            "vocabulary": vocabulary,
        }

    @router.get("/{name}", response_class=FileResponse, responses={404: ERRORS[404]})
    async def show_example(name: str) -> Any:
        """The file of an image."""
        if name not in images:
            raise HttpError(404, f"example: there is none called {name!r:.60}")
        return FileResponse(images[name])

    return router


def _description(owner: Owner) -> dict[str, Any]:
    manifest, segmenter = owner.segmenter.bundle.manifest, owner.segmenter
    return {
        "name": owner.name,
        "preset": manifest.preset,
        "precision": manifest.precision,
        "backend": segmenter.backend,
        "backend_reason": owner.public_reason,
        "image_size": manifest.image_size,
        "max_categories": owner.max_categories,
    }
