"""Convert pydantic's errors to faults in our own words, and drop refused input."""

import copy
import difflib
import re
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from receipted.errors import SettingFault

_TYPE_WORDS: Final = {
    "a valid tuple": "a list",
    "a valid dictionary": "a table",
    "a valid list": "a list",
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
}
_PREFIX: Final = "Input should "
_INSTANCE_OF: Final = re.compile(r" or (?:an )?instance of \w+")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Suggest the nearest known name, or list all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none is known; remove it"


def shape_faults(fault: ValidationError, model: type[BaseModel], prefix: str = "") -> Iterator[SettingFault]:
    """Yield a fault with the full name of its setting, and no input, for each error."""
    for error in fault.errors(include_url=False, include_context=False, include_input=False):
        path = error["loc"]
        setting = ".".join([*([prefix] if prefix else []), *map(str, path)])
        holder, field = _resolve(model, path)
        yield SettingFault(setting, _problem(error), _remedy(error, holder, field))


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a setting"
    if error["type"] == "missing":
        return "is missing"
    message = _INSTANCE_OF.sub("", error["msg"].removeprefix("Value error, "))
    if error["type"] == "timezone_aware":
        return "has no time zone"
    for theirs, ours in _TYPE_WORDS.items():
        message = message.replace(theirs, ours)
    text = message.removeprefix(_PREFIX) if message.startswith(_PREFIX) else f"be accepted: {message}"
    return f"must {text}"


def _remedy(error: ErrorDetails, holder: type[BaseModel] | None, field: FieldInfo | None) -> str:
    if error["type"] == "extra_forbidden" and holder is not None:
        return did_you_mean(str(error["loc"][-1]), holder.model_fields)
    if error["type"] == "timezone_aware":
        return "write it with one, such as 2030-01-31T00:00:00Z"
    if field is None:
        return "see receipted.example.toml"
    default = field.get_default(call_default_factory=False)
    shown = isinstance(default, str | int | float) and default != ""
    description = field.description or "see receipted.example.toml"
    return f"it is {description}" + (f" (default: {default})" if shown else "")


def _resolve(model: type[BaseModel], path: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """Return the model that holds the path, and the nearest field on the way to it."""
    current: Any = model
    holder: type[BaseModel] | None = None
    field: FieldInfo | None = None
    for step in path:
        current = _without_none(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            holder, found = current, current.model_fields.get(str(step))
            if found is None:
                return holder, None
            field, current = found, found.annotation
        else:
            # of tuple[X, ...] and dict[str, X], what it contains
            arguments = [argument for argument in get_args(current) if argument is not ...]
            current = arguments[-1] if arguments else None
    return holder, field


def _without_none(annotation: Any) -> Any:
    arguments = get_args(annotation)
    rest = [argument for argument in arguments if argument is not NoneType]
    return rest[0] if len(rest) == 1 and len(arguments) == 2 else annotation


def without_refused(data: dict[str, Any], fault: ValidationError) -> dict[str, Any]:
    """Return the data without what was refused, so that the rest can be checked too."""
    rest = copy.deepcopy(data)
    for error in fault.errors(include_url=False, include_context=False, include_input=False):
        _remove(rest, error["loc"])
    return rest


def _remove(data: Any, path: tuple[int | str, ...]) -> None:
    for at, step in enumerate(path):
        is_last = at == len(path) - 1
        if isinstance(data, dict):
            if step not in data:
                return
            if is_last or (path[at + 1 :] and not _has_step(data[step], path[at + 1])):
                del data[step]
                return
        elif isinstance(data, list) and isinstance(step, int) and is_last:
            # not removed at first, so that the places behind it keep their numbers
            if data[step] == {}:
                data.clear()
            else:
                data[step] = {}
            return
        data = data[step]


def _has_step(data: Any, step: int | str) -> bool:
    if isinstance(data, dict):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)
