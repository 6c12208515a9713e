"""The fields of requests and answers, checked by pydantic and shown in the API's description."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..runtime import parse_names
from ..runtime.images import LONGEST_SIDE
from .http_errors import HttpError

OUTPUTS = ("labels", "rle", "overlay", "scores")


def _names(value: object) -> object:
    """Names as a list: a text is a JSON list, or what `parse_names` reads."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return parse_names(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("it begins like a JSON list and is none") from error


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


CategoryNames = Annotated[list[str], BeforeValidator(_names)]
ShortSide = Annotated[int, Field(ge=0, le=LONGEST_SIDE, description="Pixels; 0 for no resize.")]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImageFields(_Fields):
    """What is said of an image that is to be kept."""

    bundle: str | None = Field(None, description="By default the first one.")
    short_side: ShortSide = 640


class SegmentFields(ImageFields):
    """What is said of an image that is to be segmented."""

    image_id: str | None = Field(None, description="Of POST /v1/images, in the place of an image.")
    categories: CategoryNames | None = Field(
        None,
        description='A list of names, or a text: "sky, tree", or "sky; tree, trees" with synonyms.',
        examples=[["sky", "tree, trees"]],
    )
    vocabulary: str | None = Field(
        None, description="A registered or published one, such as ade150, in the place of categories."
    )
    rejection: str = Field(
        "topk:8", description="Drops categories early: topk:K, min-pixels:K:PIXELS, budget:N or none."
    )
    output: Annotated[list[Literal["labels", "rle", "overlay", "scores"]], BeforeValidator(_words)] = Field(
        ["labels"], description="What the answer holds, as a list or with commas."
    )


class SegmentBody(SegmentFields):
    """`SegmentFields` as a JSON body, which may hold the image."""

    image: str | None = Field(None, description="An image file in base64.")


class VocabularyFields(_Fields):
    """The categories of a vocabulary that is registered."""

    categories: CategoryNames


class ImageAnswer(BaseModel):
    """An image that was encoded and is kept."""

    image: str = Field(description="Its identifier, for the field image_id.")
    width: int
    height: int
    bundle: str
    expires_in_s: float = Field(description="Seconds that it is kept after its last use.")
    timings_ms: dict[str, float]


class Category(BaseModel):
    """A category that is in the image."""

    index: int
    name: str
    pixels: int
    share: float
    colour: str = Field(description="The one of the overlay, as #rrggbb.")


class PngImage(BaseModel):
    """An image file."""

    encoding: Literal["png"] = "png"
    data: str = Field(description="Base64.")


class Mask(BaseModel):
    """The pixels of a category as COCO's compressed run lengths."""

    index: int
    size: tuple[int, int] = Field(description="Height and width.")
    counts: str


class SegmentAnswer(BaseModel):
    """A segmented image: of labels, rle, overlay and scores, what was asked for."""

    bundle: str
    width: int
    height: int
    categories: list[Category] = Field(description="Those in the image, the largest first.")
    names: list[str] = Field(description="All categories; a label is an index into them.")
    kept: tuple[int, int, int] = Field(description="Categories left after each rejection.")
    timings_ms: dict[str, float] = Field(description="By step; those of the encoding as they were then.")
    queue_ms: float = Field(description="Time that the request waited for others.")
    labels: PngImage | None = Field(None, description="Grey, 8 bits, or 16 above 256 categories.")
    rle: list[Mask] | None = None
    overlay: PngImage | None = None
    scores: PngImage | None = Field(None, description="Grey, 8 bits: 255 times the probability.")


class BundleAnswer(BaseModel):
    """A bundle that is served."""

    name: str
    preset: str
    precision: str
    backend: str
    backend_reason: str
    image_size: int
    max_categories: int


class LimitsAnswer(BaseModel):
    """What a request may hold."""

    bytes: int
    pixels: int
    categories: int
    images_kept: int
    image_ttl_s: float


class BundlesAnswer(BaseModel):
    """What is served, the default first, and the limits of requests."""

    bundles: list[BundleAnswer]
    limits: LimitsAnswer
    policies: list[str] = Field(description="Forms of the field rejection.")


class VocabularyAnswer(BaseModel):
    """A vocabulary and its categories."""

    name: str
    categories: list[str]


class RegisteredAnswer(BaseModel):
    """A registered vocabulary."""

    name: str
    categories: int = Field(description="How many it has.")


class VocabulariesAnswer(BaseModel):
    """The vocabularies that a request can name."""

    vocabularies: list[RegisteredAnswer]
    published: list[str]


class ExampleAnswer(BaseModel):
    """An example image and where it is."""

    name: str
    url: str


class ExamplesAnswer(BaseModel):
    """Example images, and names of what is in them."""

    images: list[ExampleAnswer]
    vocabulary: list[str]


class ErrorAnswer(BaseModel):
    """Why a request failed, in one line."""

    error: str


# What the API's description says of errors.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (401, "The API key is missing or unknown."),
        (404, "There is nothing of this name."),
        (409, "The vocabulary cannot be registered or changed."),
        (413, "The body, the image or the vocabulary is too large."),
        (415, "The body is of a type that is not read."),
        (422, "The request is wrong."),
        (429, "The server is busy; the header Retry-After says when to try again."),
        (503, "The request took too long."),
    )
}

Fields = TypeVar("Fields", bound=_Fields)


def checked_fields(model: type[Fields], fields: Mapping[str, Any]) -> Fields:
    """The fields of a request; raises HttpError, 422, which names the first one that is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise HttpError(422, _line(model, error)) from error


def _line(model: type[_Fields], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    # A misspelt field explains one that is missing.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{name:.40}: is no field of this request; the fields are {', '.join(model.model_fields)}"
    if first["type"] == "missing":
        return f"{name:.40}: is missing"
    return f"{name:.40}: {first['input']!r:.60} does not fit ({first['msg']})"
