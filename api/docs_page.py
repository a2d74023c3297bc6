"""HTML page of the OpenAPI document, without scripts or foreign resources."""

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#17201c;--accent:#17654a}
@media(prefers-color-scheme:dark){:root{--paper:#101513;--ink:#e6ece9;--accent:#63c79f}}
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
html{background:var(--paper);color:var(--ink)}a{color:var(--accent)}
h2{margin-top:3rem}h3{margin-top:2rem}code,pre{font-family:ui-monospace,monospace;font-size:.9em}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0}
td,th,code{overflow-wrap:anywhere}
th{font-weight:600}tr{border-bottom:1px solid #8884}nav li{display:inline-block;margin-right:1rem}
.method{font-weight:700}
"""

#: A word of the API within a sentence, as the description writes it for Markdown.
_CODE: Final = re.compile("`([^`]+)`")


def docs_page(document: Mapping[str, Any]) -> str:
    """Render the whole page."""
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(document['info']['title'])} API</title><style>{_STYLE}</style>",
            f"<h1>{escape(document['info']['title'])} API</h1><p>{_prose(document['info']['description'])}</p>",
            '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
            *_operations(document),
            *_models(document["components"]["schemas"]),
            "</html>",
        ]
    )


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in document["tags"]}
    for path, found in document["paths"].items():
        for method, operation in found.items():
            by_tag[operation["tags"][0]].append("".join(_operation(method.upper(), path, operation)))
    links = (f'<li><a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in by_tag)
    yield f"<nav><ul>{''.join(links)}</ul></nav>"
    for tag, sections in by_tag.items():
        yield f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>{"".join(sections)}'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{operation["operationId"]}"><code><span class="method">{method}</span> {escape(path)}</code></h3>'
    yield f"<p>{_prose(operation['summary'])}</p>"
    yield from (f"<p>{_prose(part)}</p>" for part in operation["description"].split("\n\n") if part)
    if operation["parameters"]:
        yield _table(
            ("Parameter", "In", "Form", ""),
            (
                (
                    f"<code>{escape(given['name'])}</code>{' (needed)' if given['required'] else ''}",
                    given["in"],
                    _form(given["schema"]),
                    _prose(f"{given['description']}{_unless(given['schema'])}"),
                )
                for given in operation["parameters"]
            ),
        )
    if "requestBody" in operation:
        yield f"<p>Body: {_form(operation['requestBody']['content']['application/json']['schema'])}</p>"
    yield _table(
        ("Answer", "", "Form"),
        (
            (status, _prose(answer["description"]), "<br>".join(map(_content, answer["content"].items())))
            for status, answer in operation["responses"].items()
        ),
    )


def _content(content: tuple[str, Mapping[str, Any]]) -> str:
    kind, described = content
    form = _form(described["schema"])
    return form if kind == "application/json" else f"{escape(kind)}"


def _models(schemas: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Forms</h2>"
    for name, schema in schemas.items():
        yield f'<h3 id="{_anchor(name)}">{escape(name)}</h3><p>{_prose(schema.get("description", ""))}</p>'
        if "properties" in schema:
            needed = schema.get("required", ())
            yield _table(
                ("Name", "Form", ""),
                (
                    (
                        f"<code>{escape(field)}</code>{'' if field in needed else ' (may be left out)'}",
                        _form(described),
                        _prose(described.get("description", "")),
                    )
                    for field, described in schema["properties"].items()
                ),
            )
        else:
            yield f"<p>{_form(schema)}</p>"


def _prose(text: str) -> str:
    """Render a sentence of the description, with its words of the API as code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _form(schema: Mapping[str, Any]) -> str:
    """Describe a schema in a few words."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_form(choice) for choice in schema["anyOf"])
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "anything")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if words == "array":
        return f"list of {_form(schema.get('items', {}))}"
    named = " ".join([words, *(str(schema[name]) for name in ("format",) if name in schema)])
    return escape(", ".join([named, *_bounds(schema)]))


def _unless(schema: Mapping[str, Any]) -> str:
    """Say what counts where a parameter is not given."""
    return f"; {schema['default']} where it is not given" if "default" in schema else ""


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    """Say how small and how large a number, a text or a list may be."""
    for least, most, unit in (("minimum", "maximum", ""), ("minLength", "maxLength", " characters")):
        if least in schema and most in schema:
            yield f"{schema[least]} to {schema[most]}{unit}"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | Any) -> str:
    made = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{made}</table>"


def _anchor(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
