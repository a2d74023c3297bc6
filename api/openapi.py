"""The API's description in OpenAPI 3.1, made from its operations and models: what is served is what is described."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from api.operation import Operation, Repeats
from api.refusals import ALWAYS, WITH_BODY, WITH_KEY, WITH_PROVIDER

_TEMPLATE: Final = "#/components/schemas/{model}"

_ERROR: Final[dict[str, Any]] = {
    "title": "Error",
    "description": "Every refusal has this shape.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"$ref": "#/components/schemas/ErrorDetail"},
    },
}

_DETAIL: Final[dict[str, Any]] = {
    "title": "ErrorDetail",
    "description": "What is wrong.",
    "type": "object",
    "required": ["type", "code", "message", "param", "request_id"],
    "properties": {
        "type": {
            "enum": [
                "invalid_request_error",
                "authentication_error",
                "authorization_error",
                "not_found_error",
                "conflict_error",
                "rate_limit_error",
                "api_error",
            ]
        },
        "code": {"type": "string", "description": "for programs; stable"},
        "message": {"type": "string", "description": "for people"},
        "param": {"type": ["string", "null"], "description": "what of the request is at fault"},
        "request_id": {"type": "string", "description": "as in X-Request-Id; quote it when you ask for help"},
        "errors": {
            "description": "with 400: all that is wrong, of which the first stands above",
            "type": "array",
            "items": {"$ref": _TEMPLATE.format(model="Fault")},
        },
    },
}

_FAULT: Final[dict[str, Any]] = {
    "title": "Fault",
    "description": "One thing that is wrong with a request.",
    "type": "object",
    "required": ["code", "message", "param", "where"],
    "properties": {
        "code": {"type": "string", "description": "for programs; stable"},
        "message": {"type": "string", "description": "for people"},
        "param": {"type": ["string", "null"], "description": "what of the request is at fault"},
        "where": {"enum": ["query", "header", "body"], "description": "in which part of it"},
    },
}

_HEADERS: Final[dict[str, Any]] = {
    "X-Request-Id": {"description": "names this request in the log", "required": True, "schema": {"type": "string"}},
    "X-RateLimit-Limit": {"description": "requests at once, after a rest", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "requests that are left now", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {"description": "seconds until all are back", "schema": {"type": "integer"}},
}
_RETRY: Final = {
    "Retry-After": {"description": "seconds to wait first", "required": True, "schema": {"type": "integer"}}
}

_PARTS: Final = {
    "id": {"description": "the id", "schema": {"type": "string", "format": "uuid"}},
    "account": {"description": "the account's name in the settings", "schema": {"type": "string", "minLength": 1}},
}

_ABOUT: Final = (
    "What is true of your payments, and what happened to them. "
    "Send an API key with each request, as a bearer token or as the user name of HTTP basic. "
    "Amounts are whole minor units, with the exact decimal text beside them for people; times are RFC 3339 in UTC. "
    "New names may be added to answers, and new codes to errors."
)


def description(operations: Sequence[Operation], *, server: str, version: str = "1") -> dict[str, Any]:
    """The whole document."""
    schemas, references = _schemas(operations)
    queries = {operation.query.__name__ for operation in operations if operation.query is not None}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Receipted", "version": version, "description": _ABOUT},
        "servers": [{"url": server}],
        "security": [{"bearer": []}, {"basic": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, rk_live_… or rk_test_…"},
                "basic": {"type": "http", "scheme": "basic", "description": "an API key as the user name"},
            },
            "schemas": {
                **{name: schema for name, schema in schemas.items() if name not in queries},
                "Error": _ERROR,
                "ErrorDetail": _DETAIL,
                "Fault": _FAULT,
            },
        },
    }


#: Keyed by what pydantic takes for a model, of which ours are one kind.
Reference = tuple[Any, JsonSchemaMode]

#: What only lists, objects, texts or numbers have: beside a list of types it says nothing of null.
_OF_ONE_TYPE: Final = frozenset(
    {"type", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"items", "minItems", "maxItems", "additionalProperties", "minProperties", "maxProperties"}
)

#: Where a request's default is until it is said in words, or beside a parameter.
_DEFAULT: Final = "x-default"


class _Schemas(GenerateJsonSchema):
    """JSON schemas from which generators make the types that a caller needs.

    A generator takes a field with a default for one that is always there, in requests too; so no field has one: what
    may be left out is just not required, and what is always answered is required. Null is one of a list of types.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Describe the value alone, and a default of a request in words."""
        made = super().default_schema(schema)
        default = made.pop("default", None)
        return made if self.mode == "serialization" or default is None else {**made, _DEFAULT: default}

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Describe null beside the one type there is, where that is possible."""
        made = super().nullable_schema(schema)
        (given, *_), null = made.get("anyOf", [{}]), {"type": "null"}
        if isinstance(given.get("type"), str) and given.keys() <= _OF_ONE_TYPE:
            return {**given, "type": [given["type"], null["type"]]}
        return made

    def normalize_name(self, name: str) -> str:
        """Name the page of a list after what it lists, as `PaymentList`."""
        listed = re.fullmatch(r"Listing\[(\w+?)(Answer)?\]", name)
        return f"{listed[1]}List" if listed else super().normalize_name(name)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave the titles away, which only repeat the names."""
        return False


def _schemas(operations: Sequence[Operation]) -> tuple[dict[str, Any], Mapping[Reference, dict[str, Any]]]:
    wanted: list[Reference] = []
    for operation in operations:
        wanted += [(model, "validation") for model in (operation.query, operation.body) if model is not None]
        wanted += [(operation.answer, "serialization")] if operation.answer is not None else []
    references, made = models_json_schema(
        list(dict.fromkeys(wanted)), ref_template=_TEMPLATE, schema_generator=_Schemas
    )
    defined: dict[str, Any] = made.get("$defs", {})
    for name, described in defined.items():
        if "title" in described:
            described["title"] = name  # generators name classes after it
    for operation in operations:
        if operation.body is not None:
            for schema in defined[operation.body.__name__]["properties"].values():
                _say_default(schema)
    return defined, references


def _say_default(schema: dict[str, Any]) -> None:
    default = schema.pop(_DEFAULT, None)
    if default is not None:
        schema["description"] = f"{schema['description']}; {default} where it is not given"


def _operation(
    operation: Operation, schemas: Mapping[str, Any], references: Mapping[Reference, dict[str, Any]]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": "\n\n".join(
            part for part in (operation.description, f"Scope: `{operation.scope.value}`.") if part
        ),
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, schemas), *_headers(operation)],
        "responses": _responses(operation, references),
    }
    if operation.body is not None:
        schema = references[operation.body, "validation"]
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", operation.path)
    return [{"name": name, "in": "path", "required": True, **_PARTS[name]} for name in names]


def _query_parameters(operation: Operation, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    model = schemas[operation.query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in model.get("required", ()),
            "description": schema.get("description", ""),
            "schema": _present({key: value for key, value in schema.items() if key not in ("description", "title")}),
        }
        for name, schema in model["properties"].items()
    ]


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: what may be left out is described as what it is when it is there."""
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "type", _DEFAULT)}
    if _DEFAULT in schema:
        rest["default"] = schema[_DEFAULT]
    if "type" in schema:
        (rest["type"],) = {schema["type"]} if isinstance(schema["type"], str) else {*schema["type"]} - {"null"}
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    return {**rest, **(choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})}


def _headers(operation: Operation) -> list[dict[str, Any]]:
    if operation.repeats is Repeats.NO:
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": operation.repeats is Repeats.MUST,
            "description": "your name of this call: its repeat within 24 hours is answered as the call was",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }
    ]


def _responses(operation: Operation, references: Mapping[Reference, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in operation.media_types}
    if operation.answer is not None:
        content["application/json"] = {"schema": references[operation.answer, "serialization"]}
    answers: dict[str, Any] = {
        str(operation.status): {"description": "Done.", "headers": _HEADERS, "content": content},
    }
    for status, words in sorted(_refusals(operation).items()):
        answers[str(status)] = {
            "description": words,
            "headers": {"X-Request-Id": _HEADERS["X-Request-Id"], **(_RETRY if status in (429, 503) else {})},
            "content": {"application/json": {"schema": {"$ref": _TEMPLATE.format(model="Error")}}},
        }
    return answers


def _refusals(operation: Operation) -> dict[int, str]:
    found = dict(ALWAYS)
    if operation.method != "GET":
        found |= WITH_BODY
    if operation.repeats is not Repeats.NO:
        found |= WITH_KEY
    if operation.calls_provider:
        found |= WITH_PROVIDER
    return found | dict(operation.refusals)
