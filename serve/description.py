"""The page at `/docs`: the API's description as one HTML page that needs no script and no network."""

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid var(--line); padding: 0.5rem 0 1rem; }
h2 { font-size: 1.1rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.method { background: var(--soft); border-radius: 0.25rem; padding: 0.1rem 0.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.6rem 0.2rem 0; overflow-wrap: anywhere; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
code { font-family: ui-monospace, monospace; }
details { margin: 0.5rem 0; }
pre { background: var(--soft); border-radius: 0.25rem; padding: 0.5rem; overflow-x: auto; }
"""


def description_style() -> str:
    """The style sheet of the page."""
    return _STYLE


def description_page(document: Mapping[str, Any]) -> str:
    """The HTML page of an OpenAPI document."""
    info = document["info"]
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}: API</title>",
        '<link rel="stylesheet" href="docs.css"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info.get('description', ''))}</p>",
        '<p>The same for programs: <a href="openapi.json">openapi.json</a></p>',
        *operations,
        "<section><h2>Schemas</h2>",
        *(_schema(name, schema) for name, schema in schemas.items()),
        "</section></main></body></html>",
    ]
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = [
        (parameter["name"], f"in the {parameter['in']}", _type(parameter.get("schema", {})))
        for parameter in operation.get("parameters", ())
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    for kind, content in bodies.items():
        properties = content.get("schema", {}).get("properties", {})
        rows += [(name, kind, _type(schema)) for name, schema in properties.items()]
        if not properties:
            rows.append(("the body", kind, _type(content.get("schema", {}))))
    answers = [
        (status, response.get("description", ""), ", ".join(_references(response)))
        for status, response in operation.get("responses", {}).items()
    ]
    text = operation.get("description") or operation.get("summary", "")
    return "\n".join(
        (
            f'<section><h2><span class="method">{escape(method.upper())}</span> {escape(path)}</h2>',
            f"<p>{escape(text)}</p>",
            _table(("Field", "Where", "What"), rows),
            _table(("Status", "Meaning", "Schema"), answers),
            "</section>",
        )
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    content = escape(json.dumps(schema, indent=1))
    return f"<details><summary><code>{escape(name)}</code></summary><pre>{content}</pre></details>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    kinds = [part for each in schema.get("anyOf", [schema]) if (part := _kind(each)) != "null"]
    default = schema.get("default")
    words = [" or ".join(kinds), f"by default {default}" if default is not None else ""]
    return ". ".join(word for word in (*words, schema.get("description", "")) if word)


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _references(node: Any) -> Iterator[str]:
    """The names of the schemas that a part of the document refers to."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rsplit("/", 1)[-1]
        for value in node.values():
            yield from _references(value)
