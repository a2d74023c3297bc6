"""Validation of requests: field types, strict reading, every fault at once."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import from_json
from starlette.datastructures import Headers, QueryParams

from api.errors import InvalidRequest, NotJson, RequestFault
from api.strict_json import MAX_PARAM_CHARS, check_json
from statemachine.names import MAX_NAME_CHARS, NAME_PATTERN, NAME_RULE, is_name

Result = TypeVar("Result")

_WHOLE: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_LEAP: Final = re.compile(r":60(?=[.Zz+-])")
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

#: No control characters: PostgreSQL holds no NUL, and the others are never meant.
TEXT: Final = r"^[^\x00-\x1f\x7f]*$"

#: Our codes by pydantic's; any other fault is an invalid_value.
_CODES: Final = {"extra_forbidden": "unknown_field", "missing": "missing_field", "json_invalid": "invalid_json"}

#: Messages in the words of JSON, where pydantic speaks of Python's types.
_MESSAGES: Final = {
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
}

MAX_FAULTS: Final = 20
MAX_MESSAGE_CHARS: Final = 300
_MAX_QUERY_FIELDS: Final = 100

#: Faults are listed in this order.
_ORDER: Final = ("header", "query", "body")

#: A name of a query that no model has, so that validation refuses a request that could not be read well.
_REFUSED: Final = "\0"


class Input(BaseModel):
    """Query of a request: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JsonInput(Input):
    """Body of a request: unknown names and values of other types are refused."""

    model_config = ConfigDict(strict=True)


class NoQuery(Input):
    """Query of an operation that takes none."""


def _whole(value: Any) -> Any:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int):
        return value
    raise ValueError("Input should be a whole number")


def _integral(value: Any) -> Any:
    """Read 432.0 as 432: JSON does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(value: Any) -> Any:
    if value in ("true", "false", True, False):
        return value in ("true", True)
    raise ValueError("Input should be true or false")


def _instant(value: Any) -> Any:
    """Parse an instant of RFC 3339 into UTC.

    One beyond the range of datetime becomes the nearest within it.
    """
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("Input should be an instant of RFC 3339 with its offset, such as 2026-11-21T09:00:00Z")
    text = _LEAP.sub(":59", value.upper())
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)
    except OverflowError:
        return _FIRST if value.startswith("000") else _LAST


def _payment_name(value: str) -> str:
    """Check the rule of names that are sent to a provider and read back from it."""
    if not is_name(value):
        raise ValueError(f"A name {NAME_RULE}")
    return value


def _id(value: Any) -> Any:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value.lower()
    raise ValueError("Input should be an id")


#: Of a whole number in a query; after its bounds, which the description then has too.
WHOLE: Final = BeforeValidator(_whole)
#: Of a whole number in a body.
INTEGRAL: Final = BeforeValidator(_integral)
Flag = Annotated[bool, BeforeValidator(_flag)]
Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Id = Annotated[str, BeforeValidator(_id), WithJsonSchema({"type": "string", "format": "uuid"}, mode="validation")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=TEXT)]
#: A reference of the merchant's, or a provider's id of a payment.
PaymentName = Annotated[
    str,
    AfterValidator(_payment_name),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS, "pattern": NAME_PATTERN}, mode="validation"
    ),
]


class PageQuery(Input):
    """Beginning and size of a page."""

    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(20, description="how many at most")
    after: Id | None = Field(None, description="go on after this id: older rows follow")
    before: Id | None = Field(
        None, description="go back before this id: newer rows; with `after`, the rows between both"
    )

    @property
    def is_backwards(self) -> bool:
        """True where the pages go towards the newest row."""
        return self.before is not None and self.after is None


def path_id(value: str) -> str | None:
    """Return the id in lower case; None for a text that is no id."""
    return value.lower() if _ID.fullmatch(value) else None


class CheckedRequest(Request):
    """A request that is read strictly before FastAPI validates it.

    FastAPI takes the last of two values of one name, and numbers that JSON does not have. Such faults are collected
    here, and a name that no model has is put in the query, so that validation refuses the request and finds its other
    faults on the way. `faults` then lists all of them.
    """

    def __init__(self, request: Request, raw: bytes, body_model: type[BaseModel] | None) -> None:
        super().__init__(request.scope, request.receive)
        self._raw, self._model = raw, body_model
        pairs, query_faults = read_query(request.scope.get("query_string", b""))
        self._content, body_faults = self._read_body()
        self._found = [*query_faults, *body_faults]
        self._query = QueryParams([*pairs, (_REFUSED, "")] if self._found else pairs)

    @property
    def query_params(self) -> QueryParams:
        """Names and values of the query, with the mark of a request that is refused."""
        return self._query

    async def body(self) -> bytes:
        """Return the body, which the route has read already."""
        return self._raw.strip()

    async def json(self) -> Any:
        """Return the parsed body; None where it is no JSON, which is then a fault."""
        return self._content

    def faults(self, errors: Iterable[Mapping[str, Any]], query_model: type[BaseModel]) -> list[RequestFault]:
        """List the faults of reading and validation, without the values given."""
        models = {"query": query_model, "body": self._model}
        is_read = all(fault.code != "invalid_json" for fault in self._found)
        found = [*self._found]
        for error in errors:
            where, *names = error["loc"]
            if (self._found and names == [_REFUSED]) or (where == "body" and not is_read):
                continue
            found.append(_fault(error, where, names, models.get(where)))
        return sorted(found, key=lambda fault: _ORDER.index(fault.where))[:MAX_FAULTS]

    def _read_body(self) -> tuple[Any, list[RequestFault]]:
        if self._model is None:
            is_empty = self._raw.strip() in (b"", b"{}")
            return None, [] if is_empty else [RequestFault("unknown_field", "this takes no body", None, "body")]
        if self._raw or "content-type" in self.headers:
            check_media_type(self.headers)
        return read_json(self._raw) if self._raw.strip() else (None, [])


def read_query(raw: bytes) -> tuple[list[tuple[str, str]], list[RequestFault]]:
    """Return names and values of a query, and a fault for each repeated name."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=_MAX_QUERY_FIELDS,
        )
    except ValueError:
        return [], [RequestFault("invalid_query", "the query cannot be read", None, "query")]
    given = dict(pairs)
    if len(given) == len(pairs):
        return pairs, []
    counts = Counter(name for name, _ in pairs)
    return list(given.items()), [
        RequestFault("repeated_field", "it is given more than once", name[:MAX_PARAM_CHARS], "query")
        for name, count in counts.items()
        if count > 1
    ]


def check_media_type(headers: Headers) -> None:
    """Check that the body is said to be JSON; raises NotJson."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise NotJson


def read_json(raw: bytes) -> tuple[Any, list[RequestFault]]:
    """Return the content of a body, and a fault where it is no JSON or repeats a name."""
    faults: list[RequestFault] = []
    try:
        check_json(raw)
    except InvalidRequest as wrong:
        if wrong.code == "invalid_json":
            return None, list(wrong.faults)
        faults += wrong.faults
    try:
        return from_json(raw, allow_inf_nan=False), faults
    except ValueError as wrong:
        return None, [RequestFault("invalid_json", f"Invalid JSON: {wrong}"[:MAX_MESSAGE_CHARS], None, "body")]


def _fault(error: Mapping[str, Any], where: Any, names: list[Any], model: type[BaseModel] | None) -> RequestFault:
    if where == "header":
        return _header_fault(error["type"], str(names[0]))
    if where == "body" and not names and error["type"] == "missing":
        return RequestFault("missing_body", "a JSON object is needed as the body", None, "body")
    code = _CODES.get(error["type"], "invalid_value")
    message = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ")[:MAX_MESSAGE_CHARS]
    if code == "unknown_field":
        known = list(model.model_fields) if model is not None else []
        message = f"there is no such field{suggestion(str(names[-1]), known)}" if known else "this takes no query"
    param = ".".join(map(str, names))[:MAX_PARAM_CHARS] or None
    return RequestFault(code, message, param, where)


def _header_fault(kind: str, name: str) -> RequestFault:
    if kind == "missing":
        return RequestFault("idempotency_key_missing", f"this call needs the header {name}", name, "header")
    return RequestFault("invalid_value", f"an {name} has 1 to 255 visible ASCII characters", name, "header")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Suggest the known name nearest to an unknown one; list all where none is near."""
    by_form = {_form(each): each for each in known}
    form = _form(name[:MAX_PARAM_CHARS])
    within = [each for each in by_form if form and (each.startswith(form) or form.startswith(each))]
    near = within[:1] or get_close_matches(form, by_form, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {by_form[near[0]]}?"
    return f"; there is: {', '.join(by_form.values())}" if by_form else ""


def _form(name: str) -> str:
    """Return one form of amount_minor, amountMinor and Amount-Minor."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
