"""Tensors of the Open Inference Protocol: in JSON, or in binary behind a JSON header."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field, ValidationError

from .http_errors import HttpError

LENGTH_HEADER = "Inference-Header-Content-Length"
# A BYTES tensor is an object array of bytes.
_DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": "O",
}
_DATATYPES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_MAX_TENSORS = 16


class _Input(BaseModel):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: Literal[
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32",
        "FP64", "BYTES",
    ]  # fmt: skip
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class _Header(BaseModel):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=_MAX_TENSORS)]
    outputs: Annotated[list[_Output], Field(max_length=_MAX_TENSORS)] = []


@dataclass(frozen=True)
class InferenceRequest:
    """A request: tensors by name, and the outputs that are wanted, none of them meaning all.

    Attributes:
        id: what the answer repeats.
        parameters: of the whole request.
        inputs: arrays; those of BYTES are object arrays of bytes.
        outputs: names, with whether each is wanted in binary.
        binary: whether outputs that are not named are wanted in binary.
    """

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool]
    binary: bool


def read_inference(body: bytes, header_length: str | None) -> InferenceRequest:
    """The request in a body; `header_length` is the value of `LENGTH_HEADER`, None where all is JSON.

    Raises:
        HttpError: 422, it is no such request.
    """
    end = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > end:
            raise HttpError(422, f"{LENGTH_HEADER}: is {header_length!r:.20}, expected 0 to {end}")
        end = int(header_length)
    try:
        header = _Header.model_validate_json(body[:end])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise HttpError(422, f"{where:.60}: {first['msg']}") from error
    rest = memoryview(body)[end:]
    inputs = {}
    for tensor in header.inputs:
        if tensor.name in inputs:
            raise HttpError(422, f"input {tensor.name!r:.40}: is given twice")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            inputs[tensor.name] = _from_json(tensor)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest):
            raise HttpError(
                422,
                f"input {tensor.name!r:.40}: binary_data_size is {size!r:.40}, {len(rest)} bytes are left",
            )
        inputs[tensor.name] = _from_bytes(tensor, rest[:size])
        rest = rest[size:]
    if len(rest):
        raise HttpError(422, f"body: {len(rest)} bytes belong to no input")
    binary = bool(header.parameters.get("binary_data_output"))
    outputs = {output.name: bool(output.parameters.get("binary_data", binary)) for output in header.outputs}
    return InferenceRequest(header.id, header.parameters, inputs, outputs, binary)


def write_inference(
    model: str, version: str, request: InferenceRequest, outputs: Mapping[str, np.ndarray]
) -> Response:
    """The answer to a request, with its outputs in JSON or in binary as it wants them."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, array in outputs.items():
        datatype = _DATATYPES[array.dtype.newbyteorder("<")]
        content: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if request.outputs.get(name, request.binary):
            parts.append(np.ascontiguousarray(array).tobytes())
            content["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            content["data"] = array.ravel().tolist()
        described.append(content)
    answer = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    header = json.dumps(answer, separators=(",", ":")).encode()
    if not parts:
        return Response(header, media_type="application/json")
    return Response(
        b"".join((header, *parts)),
        media_type="application/octet-stream",
        headers={LENGTH_HEADER: str(len(header))},
    )


def _from_json(tensor: _Input) -> np.ndarray:
    try:
        if tensor.datatype == "BYTES":
            array = _object_array([text.encode() for text in _flat(tensor.data)])
        else:
            array = np.array(tensor.data, dtype=_DTYPES[tensor.datatype])
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise HttpError(
            422, f"input {tensor.name!r:.40}: its data is no list of {tensor.datatype} ({error})"
        ) from error
    return _shaped(tensor, array)


def _flat(data: Any) -> list[Any]:
    """The entries of nested lists, in their order."""
    if not isinstance(data, list):
        return [data]
    return [entry for each in data for entry in (_flat(each) if isinstance(each, list) else [each])]


def _from_bytes(tensor: _Input, content: memoryview) -> np.ndarray:
    if tensor.datatype == "BYTES":
        return _shaped(tensor, _object_array(_split(tensor, content)))
    dtype = np.dtype(_DTYPES[tensor.datatype])
    if len(content) != math.prod(tensor.shape) * dtype.itemsize:
        raise HttpError(
            422,
            f"input {tensor.name!r:.40}: has {len(content)} bytes, expected those of {tensor.datatype} "
            f"{tensor.shape}",
        )
    return np.frombuffer(content, dtype).reshape(tensor.shape)


def _split(tensor: _Input, content: memoryview) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length."""
    entries = []
    start = 0
    while start < len(content):
        try:
            (length,) = struct.unpack_from("<I", content, start)
        except struct.error as error:
            raise _torn(tensor) from error
        start += 4 + length
        if start > len(content):
            raise _torn(tensor)
        entries.append(bytes(content[start - length : start]))
    return entries


def _torn(tensor: _Input) -> HttpError:
    return HttpError(422, f"input {tensor.name!r:.40}: its bytes end within an element")


def _object_array(entries: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def _shaped(tensor: _Input, array: np.ndarray) -> np.ndarray:
    if array.size != math.prod(tensor.shape):
        raise HttpError(
            422, f"input {tensor.name!r:.40}: holds {array.size} elements, its shape {tensor.shape} differs"
        )
    return array.reshape(tensor.shape)
