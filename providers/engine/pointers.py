"""JSON pointers, conditions and templates of a page, compiled to functions."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

#: What a pointer reads of a JSON value: None where there is nothing, or JSON's null.
Get = Callable[[object], object]
Test = Callable[[object], bool]

_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+(?:[.:][\w-]+)?)\}")


#: A step into a list: the first item whose member of that name is that text, such as [rel=approve].
_CHOICE: Final = re.compile(r"\[([\w-]+)=([^\]]*)\]")


class InvalidPage(ValueError):
    """A provider's page is wrong; `path` says where."""

    def __init__(self, message: str, path: Sequence[str | int] = (), *, about: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = tuple(path)
        self.about = about  #: the wrong value, where its place is not known


def pointer(text: str) -> Get:
    """Compile a JSON pointer (RFC 6901); an empty one is the whole value.

    A step `[name=text]` leads to the first item of a list that has it. Raises InvalidPage.
    """
    if not text:
        return _whole
    only = own_member(text)
    if only is not None:
        return lambda value: value.get(only) if type(value) is dict else None
    return _deep(tuple(_steps(text)))


def _steps(text: str) -> list[str]:
    if not text.startswith("/"):
        raise InvalidPage(f"{text!r} is no JSON pointer: it begins with a slash", about=text)
    return [step.replace("~1", "/").replace("~0", "~") for step in text[1:].split("/")]


def first_member(text: str) -> str:
    """Return the name that a pointer begins with; raises InvalidPage."""
    return _steps(text)[0]


def own_member(texts: str | Sequence[str]) -> str | None:
    """Return the name that is all of the pointer, or None; raises InvalidPage."""
    if not isinstance(texts, str):
        return own_member(texts[0]) if len(texts) == 1 else None
    steps = _steps(texts) if texts else []
    return steps[0] if len(steps) == 1 and not steps[0].isdigit() and not _CHOICE.fullmatch(steps[0]) else None


def first(texts: str | Sequence[str]) -> Get:
    """Compile pointers; the first that leads to a value counts."""
    if isinstance(texts, str):
        return pointer(texts)
    if len(texts) == 1:
        return pointer(texts[0])
    gets = [pointer(text) for text in texts]

    def get(value: object) -> object:
        for each in gets:
            found = each(value)
            if found is not None:
                return found
        return None

    return get


def _whole(value: object) -> object:
    return value


def _deep(steps: tuple[str, ...]) -> Get:
    chosen = {step: (found[1], found[2]) for step in steps if (found := _CHOICE.fullmatch(step)) is not None}

    def get(value: object) -> object:
        for step in steps:
            if type(value) is dict:
                value = value.get(step)
            elif step in chosen and type(value) is list:
                name, wanted = chosen[step]
                value = next((each for each in value if type(each) is dict and each.get(name) == wanted), None)
            elif type(value) is list and step.isdigit() and len(step) < 6:
                place = int(step)
                value = value[place] if place < len(value) else None
            else:
                return None
        return value

    return get


Wanted = str | int | bool | list[str]


def condition(when: Mapping[str, Wanted]) -> Test:
    """Compile the conditions of a rule, all of which must hold.

    By pointer: `"exists"`, `"absent"`, a value, a list of values, or `"~pattern"` for text that it matches whole.
    Raises InvalidPage.
    """
    tests = [_test(pointer(where), wanted) for where, wanted in when.items()]
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _test(get: Get, wanted: Wanted) -> Test:
    if wanted == "exists":
        return lambda value: get(value) is not None
    if wanted == "absent":
        return lambda value: get(value) is None
    if isinstance(wanted, str) and wanted.startswith("~"):
        fits = pattern(wanted[1:]).fullmatch

        def matches(value: object) -> bool:
            found = get(value)
            return isinstance(found, str) and fits(found) is not None

        return matches
    values = wanted if isinstance(wanted, list) else [wanted]
    # True equals 1 in Python and in no provider's JSON.
    return lambda value: any(found == each and type(found) is type(each) for found in (get(value),) for each in values)


def pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression; raises InvalidPage."""
    try:
        return re.compile(text)
    except re.error as fault:
        raise InvalidPage(f"{text!r} is no regular expression: {fault}", about=text) from None


def placeholders(tree: object) -> set[str]:
    """Return the names in braces anywhere in a tree of TOML values."""
    if isinstance(tree, str):
        return set(_PLACEHOLDER.findall(tree))
    if isinstance(tree, dict):
        return set().union(*(placeholders(part) for pair in tree.items() for part in pair))
    return set().union(*map(placeholders, tree)) if isinstance(tree, list | tuple) else set()


def fill(tree: Any, values: Mapping[str, object]) -> Any:
    """Replace `{name}` by its value anywhere in a tree of TOML values.

    Text that is one placeholder alone becomes the value with its type. What holds a value of None is left out. Names
    that `values` does not have stay as they are.
    """
    if isinstance(tree, str):
        return _filled(tree, values)
    if isinstance(tree, dict):
        pairs = ((fill(name, values), fill(part, values)) for name, part in tree.items())
        return {name: part for name, part in pairs if name is not None and part is not None}
    if isinstance(tree, list | tuple):
        return [part for part in (fill(each, values) for each in tree) if part is not None]
    return tree


def _filled(text: str, values: Mapping[str, object]) -> object:
    if "{" not in text:
        return text
    alone = _PLACEHOLDER.fullmatch(text)
    if alone is not None:
        return values.get(alone[1], text)
    names = _PLACEHOLDER.findall(text)
    if any(name in values and values[name] is None for name in names):
        return None
    return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def merged(*trees: Mapping[str, object]) -> dict[str, object]:
    """Merge objects, the later over the earlier, and objects in them likewise."""
    result: dict[str, object] = {}
    for tree in trees:
        for name, value in tree.items():
            known = result.get(name)
            if isinstance(known, dict) and isinstance(value, Mapping):
                result[name] = merged(known, cast("Mapping[str, object]", value))
            else:
                result[name] = value
    return result
