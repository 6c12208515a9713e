"""Settings from YAML files and `key=value` texts, checked against `TrainConfig`, and back to YAML."""

import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..atomic import replacing
from ..errors import InputError
from ..paths import is_file
from .config import TrainConfig

TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig)
NAMED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        InputError: the file is missing or no YAML mapping, or a setting is unknown or of another type.
    """
    if not is_file(path):
        raise InputError(f"{path}: no such file; give a YAML file of settings, such as a run's config.yaml")
    try:
        content, texts = both_ways(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read as YAML ({reason}); write one `name: value` a line"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; write one `name: value` a line")
    return checked(content, texts, str(path))


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """The settings of texts such as "lr=1e-4" or "freeze=[res2, res3]"; values are YAML.

    Raises:
        InputError: a text has no "=", or a setting is unknown or of another type.
    """
    found: dict[str, Any] = {}
    unread: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set: {text!r} has no '='; write name=value")
        try:
            found[name.strip()], unread[name.strip()] = both_ways(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set: the value of {text!r} is not YAML; quote it") from error
    return checked(found, unread, "--set")


def both_ways(text: str) -> tuple[Any, Any]:
    """What a YAML text holds, and the same with `no`, `2017` and the like left as texts.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)


def checked(values: Mapping[Any, Any], texts: Mapping[str, Any], source: str) -> dict[str, Any]:
    """`values` with the types of `TrainConfig`'s fields.

    Args:
        values: as YAML reads them.
        texts: as they are written, which settings that are texts are taken from.
        source: what messages call them.

    Raises:
        InputError: a name is unknown or a value of another type; the message names `source`.
    """
    for name in values:
        if name not in TYPES:
            raise InputError(f"{source}: {name!r} is no setting; choose from {', '.join(TYPES)}")
    found = {}
    for name, value in values.items():
        as_written = value is not None and TYPES[name] in (str, str | None)
        found[name] = as_type(texts[name] if as_written else value, TYPES[name], f"{source}: {name}")
    return found


def as_type(value: Any, wanted: Any, what: str) -> Any:
    """`value` as the annotation `wanted`: bool, int, float, str, an optional one, or a tuple of texts.

    Raises:
        InputError: it is of another type.
    """
    optional = isinstance(wanted, types.UnionType)
    if optional:
        if value is None:
            return None
        wanted = next(each for each in typing.get_args(wanted) if each is not types.NoneType)
    if typing.get_origin(wanted) is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
        raise InputError(f"{what} is {value!r}; expected a list of texts")
    if wanted is float and isinstance(value, str):
        # YAML takes 1e-4, which has no point, for a text.
        with suppress(ValueError):
            value = float(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        expected = NAMED[wanted] + (" or null" if optional else "")
        raise InputError(f"{what} is {value!r}; expected {expected}")
    return value


def write_settings(config: TrainConfig, path: Path) -> None:
    """Write every setting as YAML, which `read_settings` reads.

    Raises:
        InputError: the file cannot be written.
    """
    content = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
    }
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
