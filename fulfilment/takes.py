"""Which effects a sink takes: what it does not take is never owed to it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_REQUIRED: Final = ".review_required"
_CLOSED: Final = ".review_closed"

#: What people are told by e-mail where nothing else is said: alarms, and what a person must decide.
OF_EMAIL: Final = ("account.*", f"*{_REQUIRED}")


@dataclass(frozen=True, slots=True)
class Takes:
    """Whether a sink takes an effect, by names and by patterns in which `*` stands for anything.

    Whoever is told that a review is required is told that it is closed as well, whatever the patterns say.
    """

    patterns: tuple[str, ...] = ("*",)
    _form: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_form", re.compile("|".join(map(_form, self.patterns)) or r"(?!)"))

    def __call__(self, effect: str) -> bool:
        """Whether the effect is owed to the sink."""
        if self._form.fullmatch(effect):
            return True
        subject, closed, rest = effect.partition(_CLOSED)
        return bool(closed) and not rest and self._form.fullmatch(subject + _REQUIRED) is not None


def unknown(patterns: Iterable[str], known: Iterable[str]) -> list[str]:
    """The patterns that match none of the effects that there are."""
    names = list(known)
    return [each for each in patterns if not any(re.fullmatch(_form(each), name) for name in names)]


def _form(pattern: str) -> str:
    return ".*".join(re.escape(part) for part in pattern.split("*"))
