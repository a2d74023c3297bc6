"""OpenAPI 3.1 document of the API, in a form that suits client generators."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import BaseRoute

from service.effect_schema import effect_meanings, effect_schema, shared_schemas

_ABOUT: Final = (
    "What is true of your payments, and what happened to them. "
    "Send an API key with each request, as a bearer token or as the user name of HTTP basic. "
    "Amounts are whole minor units, with the exact decimal text beside them for people; times are RFC 3339 in UTC. "
    "New names may be added to answers, and new codes to errors."
)

_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, rk_live_… or rk_test_…"},
    "basic": {"type": "http", "scheme": "basic", "description": "an API key as the user name"},
}

_REF: Final = "#/components/schemas/"

#: Keywords of schemas with one type: beside a list of types they say nothing of null.
_OF_ONE_TYPE: Final = frozenset(
    {"type", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"items", "minItems", "maxItems", "additionalProperties", "minProperties", "maxProperties"}
)


#: FastAPI's schemas of a 422 for faults of the form, which are a 400 in our shape here.
_OTHER_ERRORS: Final = ("HTTPValidationError", "ValidationError")


class _FaultSchema(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(title="Fault")

    code: str = Field(description="for programs; stable")
    message: str = Field(description="for people")
    param: str | None = Field(description="what of the request is at fault")
    where: Literal["query", "header", "body"] = Field(description="in which part of it")


class _DetailSchema(BaseModel):
    """Details of an error."""

    model_config = ConfigDict(title="ErrorDetail")

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "authorization_error",
        "not_found_error",
        "conflict_error",
        "rate_limit_error",
        "api_error",
    ]
    code: str = Field(description="for programs; stable")
    message: str = Field(description="for people")
    param: str | None = Field(description="what of the request is at fault")
    request_id: str = Field(description="as in X-Request-Id; quote it when you ask for help")
    errors: list[_FaultSchema] = Field([], description="with 400: all that is wrong, of which the first stands above")


class _ErrorSchema(BaseModel):
    """Every refusal has this shape."""

    model_config = ConfigDict(title="Error")

    error: _DetailSchema


def document(
    routes: Sequence[BaseRoute],
    *,
    tags: Sequence[str],
    server: str,
    subjects: Sequence[str] = ("payment",),
    version: str = "1",
) -> dict[str, Any]:
    """Describe the API, and under `webhooks` every effect.

    `subjects` are those of lifecycles, after which effects are named.

    A generator takes a field with a default for one that is always there, in requests too; so no field has one: what
    may be left out is just not required, and what is always answered is required. Null is one of a list of types.
    """
    made = get_openapi(
        title="Receipted",
        version=version,
        openapi_version="3.1.0",
        description=_ABOUT,
        routes=routes,
        tags=[{"name": tag} for tag in tags],
        servers=[{"url": server}],
    )
    schemas: dict[str, Any] = made["components"]["schemas"]
    for name in _OTHER_ERRORS:
        schemas.pop(name)
    errors = _ErrorSchema.model_json_schema(ref_template=f"{_REF}{{model}}")
    schemas |= {**errors.pop("$defs"), "Error": errors}
    bodies = {_name(found["requestBody"]["content"]["application/json"]["schema"]) for found in _bodies(made)}
    for name, schema in schemas.items():
        for field in schema.get("properties", {}).values():
            _clean_field(field, is_request=name in bodies)
    for operation in _operations(made):
        operation.setdefault("parameters", [])
        if _OTHER_ERRORS[0] in str(operation["responses"].get("422")):
            operation["responses"].pop("422")
        for parameter in operation["parameters"]:
            _clean_parameter(parameter)
    schemas |= shared_schemas(_REF)
    made["webhooks"] = {name: _webhook(name, meaning) for name, meaning in effect_meanings(tuple(subjects)).items()}
    made["security"] = [{scheme: []} for scheme in _SECURITY_SCHEMES]
    made["components"]["securitySchemes"] = _SECURITY_SCHEMES
    return _named_by_title(made)


#: Headers of Standard Webhooks, which sinks get with each effect.
_EFFECT_HEADERS: Final = {
    "webhook-id": "the same at every attempt; skip what you have done",
    "webhook-timestamp": "seconds since 1970, of this attempt",
    "webhook-signature": "`v1,` and a signature in Base64, one for each of the sink's secrets",
}


def _webhook(effect: str, meaning: str) -> dict[str, Any]:
    """Describe the POST to a sink that hands over the effect."""
    headers = [
        {"name": name, "in": "header", "required": True, "description": told, "schema": {"type": "string"}}
        for name, told in _EFFECT_HEADERS.items()
    ]
    body = {"required": True, "content": {"application/json": {"schema": effect_schema(effect, _REF)}}}
    answers = {"2XX": {"description": "done; any other answer is tried again"}, "410": {"description": "never again"}}
    return {"post": {"summary": meaning, "parameters": headers, "requestBody": body, "responses": answers}}


def _operations(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in made["paths"].values():
        yield from path.values()


def _bodies(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for operation in _operations(made) if "requestBody" in operation)


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).removeprefix(_REF)


def _clean_field(field: dict[str, Any], *, is_request: bool) -> None:
    """Drop the title, which repeats the name; say a request's default in words."""
    field.pop("title", None)
    default = field.pop("default", None)
    _merge_null(field)
    if is_request and default is not None:
        field["description"] = f"{field['description']}; {default} where it is not given"


def _merge_null(schema: dict[str, Any]) -> None:
    """Put null beside the one type there is, where that is possible."""
    choices = schema.get("anyOf", ())
    if len(choices) == 2 and choices[1] == {"type": "null"}:
        given = choices[0]
        if isinstance(given.get("type"), str) and given.keys() <= _OF_ONE_TYPE:
            schema.pop("anyOf")
            schema.update({**given, "type": [given["type"], "null"]})


def _clean_parameter(parameter: dict[str, Any]) -> None:
    """Drop null from the schema: a query and a header cannot say it."""
    schema = parameter["schema"]
    for key in ("title", "description"):
        schema.pop(key, None)
    choices = [choice for choice in schema.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema.update(choices[0])
    elif choices:
        schema["anyOf"] = choices
    if "default" in schema and schema["default"] is None:
        schema.pop("default")


def _named_by_title(made: dict[str, Any]) -> dict[str, Any]:
    """Name each schema by its title, its public name where the class has another."""
    names = {name: schema.get("title", name) for name, schema in made["components"]["schemas"].items()}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            found = {key: renamed(inner) for key, inner in value.items()}
            if isinstance(found.get("$ref"), str):
                found["$ref"] = f"{_REF}{names[_name(found)]}"
            return found
        return [renamed(inner) for inner in value] if isinstance(value, list) else value

    schemas = made["components"].pop("schemas")
    found: dict[str, Any] = renamed(made)
    found["components"]["schemas"] = {names[name]: renamed(schema) for name, schema in sorted(schemas.items())}
    return found
