"""Random changes to JSON documents."""

import copy
import functools
import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 77, 2**70, -(2**70), 1.5, 1e300, "", "x", "../x", "/etc/passwd",
    "a\0b", "é\n", "T", "float16", "int8", "{}", "a {} {}", "an image of {}", "\ud800{}", "x" * 5000,
    [], {}, [1], ["{}"], [[[]]], {"a": 1},
)  # fmt: skip
Place = tuple[str | int, ...]


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every value inside a JSON document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*place, key)
        yield from _places(value[key], (*place, key))


def _at(data: Any, place: Place) -> Any:
    return functools.reduce(lambda value, key: value[key], place, data)


def _change(generator: random.Random, data: dict[str, Any]) -> str:
    """Change one thing in place, and say what."""
    *above, key = place = generator.choice(list(_places(data)))
    parent, value = _at(data, tuple(above)), _at(data, place)
    kind = generator.choice(["set", "set", "copy", "delete", "duplicate", "step", "rename", "text", "all"])
    if kind == "delete":
        del parent[key]
    elif kind == "copy":
        parent[key] = copy.deepcopy(_at(data, generator.choice(list(_places(data)))))
    elif kind == "duplicate" and isinstance(parent, list):
        parent.insert(generator.randrange(len(parent) + 1), copy.deepcopy(value))
    elif kind == "duplicate":
        parent[generator.choice(["more", *parent])] = copy.deepcopy(value)
    elif kind == "step" and isinstance(value, int):
        parent[key] += generator.choice([-1, 1, 2, 7])
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif kind == "text" and isinstance(value, str) and value:
        index = generator.randrange(len(value))
        parent[key] = value[:index] + generator.choice('aé{} 0"\0') + value[index + 1 :]
    elif kind == "all" and isinstance(value, int | str):
        # A change that agrees with itself: the same value everywhere.
        new = generator.choice([value * 2, value + value[:1] if isinstance(value, str) else value + 1])
        for other in list(_places(data)):
            if _at(data, other) == value:
                _at(data, other[:-1])[other[-1]] = new
    else:
        parent[key] = copy.deepcopy(generator.choice(VALUES))
    return f"{kind} {place}"


def changed(seed: int, original: str) -> tuple[str, list[str]]:
    """A changed JSON text, and a description of each change."""
    generator = random.Random(seed)
    data = json.loads(original)
    changes = [_change(generator, data) for _ in range(generator.choice([1, 1, 1, 2, 3]))]
    text = json.dumps(data)
    if generator.random() < 0.05:
        index = generator.randrange(len(text))
        text = text[:index] + generator.choice(["", "{", "]", '"', "\\", "9"]) + text[index + 1 :]
        changes.append(f"character {index}")
    return text, changes
