"""The API's description says of each field what generators of clients need: there, not there, or null."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.application import api_document, operations

DOCUMENT = api_document("https://pay.example.com")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
BODIES = {
    operation.body_model.__name__: operation.body_model
    for operation in operations()
    if operation.body_model is not None
}


def _reached(schema: Any) -> Iterator[str]:
    """The names of all schemas that this one refers to, and what they refer to."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            yield name
            yield from _reached(SCHEMAS[name])
        for inner in schema.values():
            yield from _reached(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _reached(inner)


def _within(value: Any) -> Iterator[dict[str, Any]]:
    """Every schema and object of the document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _within(inner)


def _answered() -> set[str]:
    return {
        name
        for found in DOCUMENT["paths"].values()
        for operation in found.values()
        for answer in operation["responses"].values()
        for name in _reached(answer)
    }


def test_nothing_is_null_unless_it_is_given():
    """`default: null` makes a generator take the field for one that is always there."""
    assert [part for part in _within(DOCUMENT) if "default" in part and part["default"] is None] == []


def test_no_field_of_any_schema_has_a_default():
    """A generator takes a field with any default for one that is always there, and then requires it of a request."""
    given = [(name, field) for name, schema in SCHEMAS.items() for field in _within(schema) if "default" in field]

    assert given == []


@pytest.mark.parametrize("name", BODIES)
def test_a_request_requires_what_the_service_requires_and_nothing_else(name):
    fields = BODIES[name].model_fields

    assert set(SCHEMAS[name].get("required", ())) == {field for field, info in fields.items() if info.is_required()}
    assert SCHEMAS[name]["properties"].keys() == fields.keys()


def test_what_a_request_takes_where_nothing_is_given_is_said_in_words():
    assert SCHEMAS["RedriveBody"]["properties"]["limit"]["description"].endswith("; 100 where it is not given")


def test_a_parameter_says_what_it_is_where_it_is_not_given():
    (limit,) = (each for each in DOCUMENT["paths"]["/v1/payments"]["get"]["parameters"] if each["name"] == "limit")

    assert (limit["required"], limit["schema"]["default"]) == (False, 20)


@pytest.mark.parametrize(
    "name", sorted(name for name in _answered() - {"ErrorDetail"} if "properties" in SCHEMAS[name])
)
def test_every_field_of_an_answer_is_always_there(name):
    """Our answers leave nothing out; an error may have `errors` beside what it always has."""
    schema = SCHEMAS[name]

    assert sorted(schema["required"]) == sorted(schema["properties"])


def test_null_is_a_type_among_others():
    """As OpenAPI 3.1 has it: no `nullable`, and one list of types where there is one type beside null."""
    for part in _within(DOCUMENT):
        assert "nullable" not in part
        choices = part.get("anyOf", ())
        if {"type": "null"} in choices:
            assert all("type" not in choice or choice["type"] in ("null", "array", "object") for choice in choices), (
                part
            )


def test_no_parameter_is_null():
    """A query and a header have no way to say so."""
    for found in DOCUMENT["paths"].values():
        for operation in found.values():
            for parameter in operation["parameters"]:
                assert "null" not in str(parameter["schema"]), parameter


def test_an_id_is_of_one_type_in_answers_paths_and_queries():
    """What an answer names is asked for as it is, without being made into something else first."""
    ids = {"id", "payment", "message", "variant_of", "replaced_by"}
    fields = {
        (name, field): schema
        for name in _answered() - {"Error", "ErrorDetail", "Fault"}
        for field, schema in SCHEMAS[name].get("properties", {}).items()
        if field in ids and "string" in str(schema) and (name, field) != ("EventAnswer", "id")  # a number in the feed
    }
    fields |= {(name, "next"): SCHEMAS[name]["properties"]["next"] for name in SCHEMAS if name.endswith("List")}

    assert len(fields) > 15
    assert {name: schema for name, schema in fields.items() if "uuid" not in str(schema)} == {}


def test_every_schema_is_called_what_it_is_found_under():
    """Some generators name a class by the title, and others by the key; neither is of a generic class."""
    assert {name: schema["title"] for name, schema in SCHEMAS.items() if schema.get("title", name) != name} == {}
    assert [name for name in SCHEMAS if not name.isalnum()] == []
