"""The vocabularies of the published evaluation, by name."""

import json
from importlib import resources

from ...errors import InputError


def published_names() -> list[str]:
    """Names that `published` knows, sorted."""
    return sorted(file.name.removesuffix(".json") for file in _files() if file.name.endswith(".json"))


def published(name: str) -> list[str]:
    """Category names of a published vocabulary such as "ade150"; raises InputError for an unknown one."""
    for file in _files():
        if file.name == f"{name}.json":
            names: list[str] = json.loads(file.read_text(encoding="utf-8"))
            return names
    raise InputError(f"vocabulary: {name!r} is unknown; choose one of {', '.join(published_names())}")


def _files() -> list[resources.abc.Traversable]:
    return list(resources.files(__name__).iterdir())
