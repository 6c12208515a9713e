"""JSON records validated by msgspec: an error names the field, its value and what is expected."""

import re
from typing import Any, TypeVar

import msgspec

Record = TypeVar("Record")
# From the root of a record to a field: names of fields, keys of objects, positions in lists.
FieldPath = tuple[str | int, ...]


class RecordError(Exception):
    """A record is missing, no JSON, of another format, or has a wrong field; the message says which."""


def decode_record(content: bytes | str, kind: type[Record], version: int) -> Record:
    """The record in a JSON file.

    Args:
        content: of the file.
        kind: what msgspec converts the JSON object to, for example a dataclass.
        version: the number that the field `format` must hold.

    Raises:
        RecordError: the content is not such a record.
    """
    try:
        data = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise RecordError(f"holds a {type(data).__name__}, expected an object")
    if data.get("format") != version:
        raise RecordError(f"format {data.get('format')!r} is unknown, this version reads format {version}")
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RecordError(_explained(data, kind, str(error))) from error


def field_name(path: FieldPath) -> str:
    """How errors name a field: `stages.scout.inputs[0].dtype`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def wrong_field(path: FieldPath, value: Any, expected: str) -> RecordError:
    """The error of a field whose value is not the expected one."""
    return RecordError(f"the field '{field_name(path)}' is {value!r:.60}, expected {expected}")


def _explained(data: Any, kind: type[Any], message: str) -> str:
    """A message of msgspec's, for example "Expected `int`, got `str` - at `$.limits.max_side`"."""
    reason, marker, where = message.rpartition(" - at `$")
    if not marker:
        # The record itself is wrong, not a field of it.
        reason, where = message, ""
    path, value = _located(data, kind, message, where)
    if missing := re.fullmatch(r"Object missing required field `(.+)`", reason):
        return f"the field '{field_name((*path, missing[1]))}' is missing"
    if expected := re.fullmatch(r"Expected (.+?)(, got .+)?", reason):
        return str(wrong_field(path, value, expected[1].replace("`", "")))
    return f"the field '{field_name(path)}': {reason}"


def _located(data: Any, kind: type[Any], message: str, where: str) -> tuple[FieldPath, Any]:
    """The path that msgspec writes as `.limits.max_side`, and the value there.

    msgspec writes `[...]` for the key of an object. It is the key that gives the same message when it is the
    only one in that object.
    """
    path: FieldPath = ()
    value = data
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", where):
        step: str | int = name or index
        if index == "...":
            for step in value:
                if _refusal(_replaced(data, path, {step: value[step]}), kind) == message:
                    break
        elif index:
            step = int(index)
        path, value = (*path, step), value[step]
    return path, value


def _refusal(data: Any, kind: type[Any]) -> str | None:
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _replaced(data: Any, path: FieldPath, value: Any) -> Any:
    """A copy of `data` with `value` at `path`."""
    if not path:
        return value
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = _replaced(data[path[0]], path[1:], value)
    return copy
