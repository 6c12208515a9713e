"""Copies on the device with nothing but ONNX Runtime: a graph of one node whose output is its input."""

from typing import Any

from .onnxruntime_engine import library

# Numbers of the ONNX format: wire types, fields of its messages and values of its enumerations.
_VARINT, _MESSAGE = 0, 2
_UINT8 = 2
_IR_VERSION, _OPSET = 8, 13


def copy_session(provider: str) -> Any:
    """A session that copies its input `x`, uint8 of any length, to its output `y`."""
    onnxruntime = library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_identity_graph(), options, providers=[provider])


def _identity_graph() -> bytes:
    # The onnx package, which would write these bytes, is not among the runtime's requirements.
    node = _text(1, "x") + _text(2, "y") + _text(4, "Identity")
    graph = (
        _message(1, node)
        + _text(2, "copy")
        + _message(11, _bytes_named("x"))
        + _message(12, _bytes_named("y"))
    )
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _number(2, _OPSET))


def _bytes_named(name: str) -> bytes:
    """A ValueInfoProto: a row of bytes of any length."""
    row = _message(2, _message(1, _text(2, "bytes")))
    return _text(1, name) + _message(2, _message(1, _number(1, _UINT8) + row))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3 | _VARINT, value])


def _message(field: int, content: bytes) -> bytes:
    # One byte holds a length below 128; this graph stays below.
    return bytes([field << 3 | _MESSAGE, len(content)]) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
