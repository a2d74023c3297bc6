"""Read a request's query and body by their models, and say in the one error shape all that is wrong with them."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from starlette.datastructures import Headers

from api.errors import Fault, InvalidRequest, NotJson
from statemachine.names import MAX_NAME_CHARS, NAME_PATTERN, NAME_RULE, is_name

Model = TypeVar("Model", bound=BaseModel)

_WHOLE: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_LEAP: Final = re.compile(r":60(?=[.Zz+-])")
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

#: No control characters: PostgreSQL holds no NUL, and nobody means the others.
TEXT: Final = r"^[^\x00-\x1f\x7f]*$"

_CODES: Final = {"extra_forbidden": "unknown_field", "missing": "missing_field", "json_invalid": "invalid_json"}

MAX_PARAM_CHARS: Final = 100

#: A request may be wrong in more ways than anybody reads.
MAX_FAULTS: Final = 20

Where = Literal["query", "body"]


class Input(BaseModel):
    """What a caller sends: names that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _whole(value: Any) -> Any:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, int):
        return value
    raise ValueError("Input should be a whole number")


def _integral(value: Any) -> Any:
    """JSON does not tell 432 from 432.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(value: Any) -> Any:
    if value in ("true", "false", True, False):
        return value in ("true", True)
    raise ValueError("Input should be true or false")


def _instant(value: Any) -> Any:
    """An instant of RFC 3339, in UTC; one beyond what we can hold is the last that we can."""
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("Input should be an instant of RFC 3339 with its offset, such as 2026-11-21T09:00:00Z")
    text = _LEAP.sub(":59", value.upper())
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)
    except OverflowError:
        return _FIRST if value.startswith("000") else _LAST


def _payment_name(value: str) -> str:
    """The rule of what is sent to a provider and read back from it."""
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
Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=TEXT)]


class Listed(Input):
    """Where a page begins, and how large it is."""

    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(20, description="how many at most")
    after: Id | None = Field(None, description="go on after this id: older rows follow")
    before: Id | None = Field(
        None, description="go back before this id: newer rows; with `after`, the rows between both"
    )

    @property
    def is_backwards(self) -> bool:
        """Whether the walk goes towards the newest."""
        return self.before is not None and self.after is None


def path_id(value: str) -> str | None:
    """The id in lower case; None for what is none."""
    return value.lower() if _ID.fullmatch(value) else None


def query_of(model: type[Model] | None, raw: bytes) -> Model | None:
    """Read the query by its model; raises InvalidRequest."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=100
        )
    except ValueError:
        raise InvalidRequest([Fault("invalid_query", "the query cannot be read", None, "query")]) from None
    given: dict[str, str] = {}
    repeated: dict[str, Fault] = {}
    for name, value in pairs:
        if name in given:
            words = "it is given more than once"
            repeated[name] = Fault("repeated_field", words, name[:MAX_PARAM_CHARS], "query")
        given[name] = value
    if model is None:
        unknown = [Fault("unknown_field", "this takes no query", name[:MAX_PARAM_CHARS], "query") for name in given]
        return _taken(None, [*repeated.values(), *unknown])
    try:
        return _taken(model.model_validate(given), repeated.values())
    except ValidationError as fault:
        raise InvalidRequest([*repeated.values(), *faults_of(model, fault, "query")][:MAX_FAULTS]) from None


def _taken(read: Model | None, faults: Iterable[Fault]) -> Model | None:
    if found := list(faults)[:MAX_FAULTS]:
        raise InvalidRequest(found)
    return read


def check_media_type(headers: Headers) -> None:
    """Return where the body is said to be JSON; raises NotJson."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise NotJson


def body_of(model: type[Model] | None, raw: bytes, headers: Headers) -> Model | None:
    """Read the body by its model; raises NotJson or InvalidRequest."""
    if model is None:
        if raw.strip() not in (b"", b"{}"):
            raise InvalidRequest([Fault("unknown_field", "this takes no body", None, "body")])
        return None
    if raw or "content-type" in headers:
        check_media_type(headers)
    if not raw.strip():
        raise InvalidRequest([Fault("missing_body", "a JSON object is needed as the body", None, "body")])
    faults = _ambiguous(raw)
    try:
        return _taken(model.model_validate_json(raw, strict=True), faults)
    except ValidationError as fault:
        raise InvalidRequest([*faults, *faults_of(model, fault, "body")][:MAX_FAULTS]) from None


def check_json(raw: bytes | str) -> None:
    """Return for JSON that every reader reads alike; raises InvalidRequest.

    A name that is given twice in one object means one thing to one parser and another to the next, and so does a number
    that JSON has not: NaN, Infinity, and what is too large for a float.
    """
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        json.loads(text, object_pairs_hook=_once_each, parse_float=_finite, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # broken UTF-8, and more digits than Python reads, are ValueErrors
        raise InvalidRequest([Fault("invalid_json", "the body is not JSON", None, "body")]) from None


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            words = "a name is given more than once in one object"
            raise InvalidRequest([Fault("repeated_field", words, name[:MAX_PARAM_CHARS], "body")])
        seen.add(name)


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("out of range")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _ambiguous(raw: bytes) -> list[Fault]:
    """List names that are given twice; raises InvalidRequest for what is no JSON."""
    try:
        check_json(raw)
    except InvalidRequest as wrong:
        if wrong.code == "invalid_json":
            raise
        return list(wrong.faults)
    return []


def faults_of(model: type[BaseModel], fault: ValidationError, where: Where) -> Iterator[Fault]:
    """List all that is wrong, each without the value that was given."""
    for each in fault.errors(include_url=False, include_context=False, include_input=False):
        param = ".".join(str(part) for part in each["loc"])[:MAX_PARAM_CHARS] or None
        code = _CODES.get(each["type"], "invalid_value")
        words = each["msg"].removeprefix("Value error, ")[:300]
        if code == "unknown_field":
            words = f"there is no such field{meant(str(each['loc'][-1]), model.model_fields)}"
        yield Fault(code, words, param, where)


def meant(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is nearest to one that is not known; all of them where none is near."""
    by_form = {_form(each): each for each in known}
    form = _form(name[:MAX_PARAM_CHARS])
    within = [each for each in by_form if form and (each.startswith(form) or form.startswith(each))]
    near = within[:1] or get_close_matches(form, by_form, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {by_form[near[0]]}?"
    return f"; there is: {', '.join(by_form.values())}" if by_form else ""


def _form(name: str) -> str:
    """One form of amount_minor, amountMinor and Amount-Minor."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
