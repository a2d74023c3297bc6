"""Secrets: read through references, and revealed only by an explicit call."""

import hmac
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Self, final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from receipted.redaction import RegisteredSecrets, redact_text

#: What every key that signs or verifies must have: 128 bits, were it random.
MIN_KEY_BYTES: Final = 16

REFERENCE_REMEDY: Final = 'give it as "env:NAME" (an environment variable) or "file:path" (a file)'

_MAX_FILE_BYTES: Final = 64 * 1024
_OTHERS_READ_MODE: Final = 0o044
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@final
class Secret:
    """Secret value that only `reveal()` returns; everything else shows its reference.

    That holds for repr, str, dumps and errors. A reference that led nowhere is a Secret too, with a `problem`, so that
    all faults can be reported together.
    """

    __slots__ = ("_value", "is_exposed", "is_plain", "problem", "reference", "remedy")

    def __init__(
        self,
        value: str = "",
        *,
        reference: str,
        problem: str = "",
        remedy: str = "",
        is_plain: bool = False,
        is_exposed: bool = False,
    ) -> None:
        self._value = value
        self.reference = reference  #: where it came from; may be shown
        self.problem = problem  #: why there is no value; empty where there is one
        self.remedy = remedy
        self.is_plain = is_plain  #: written in the settings themselves
        self.is_exposed = is_exposed  #: in a file that others on this machine may read

    def reveal(self) -> str:
        """Return the value; raises ValueError with the reference where there is none."""
        if self.problem:
            raise ValueError(f"the secret {self.reference} {self.problem}")
        return self._value

    def size_bytes(self) -> int:
        """Return the size of the value in UTF-8 bytes."""
        return len(self._value.encode())

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        same = hmac.compare_digest(self._value.encode(), other._value.encode())
        return same and self.reference == other.reference and self.problem == other.problem

    def __hash__(self) -> int:
        return hash(self.reference)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")

    @classmethod
    def missing(cls) -> "Secret":
        """Return the Secret of a setting that was not given."""
        return cls(reference="missing", problem="is missing", remedy=REFERENCE_REMEDY)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, info: core_schema.ValidationInfo) -> Secret:
            if isinstance(value, Secret):
                return value
            reader = info.context if isinstance(info.context, SecretReader) else SecretReader()
            return reader.read(value)

        return core_schema.with_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda secret: secret.reference, return_schema=core_schema.str_schema()
            ),
        )


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Reader of references; relative paths start at `base`, the settings' folder."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    base: Path = field(default_factory=Path)

    def read(self, text: object) -> Secret:
        """Read the Secret of a reference; a bad reference gives one with a problem.

        Never raises.
        """
        if not isinstance(text, str):
            return Secret(reference="not text", problem="is not text", remedy=REFERENCE_REMEDY)
        kind, colon, rest = text.partition(":")
        if colon and kind == "env":
            return self._variable(rest)
        if colon and kind == "file":
            return self._file(rest)
        if colon and kind == "plain":
            return checked_secret(rest, reference="plain:***", is_plain=True)
        # the text may be the secret itself, so no part of it is repeated
        return Secret(reference="a literal value", problem="is a literal value", remedy=REFERENCE_REMEDY)

    def _variable(self, name: str) -> Secret:
        if (
            not _VARIABLE.fullmatch(name) or redact_text(name, RegisteredSecrets()) != name
        ):  # it may be the secret itself
            return Secret(
                reference="env:***",
                problem="has no name of an environment variable behind env:",
                remedy='write "env:" and a name of letters, digits and underscores, such as "env:SHOP_WEBHOOK_KEY"',
            )
        reference = f"env:{name}"
        value = self.environ.get(name)
        if value is None:
            return Secret(
                reference=reference,
                problem=f"refers to the environment variable {name}, which is not set",
                remedy="set it for this process, or refer to another",
            )
        return checked_secret(value, reference=reference)

    def _file(self, name: str) -> Secret:
        reference = f"file:{name}"
        path = self.base / name
        try:
            mode = path.stat().st_mode
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE_BYTES + 1)
            value = raw.decode()
        except UnicodeDecodeError:
            problem = f"refers to the file {path}, which is not text in UTF-8"
            return Secret(reference=reference, problem=problem, remedy="write the secret as text")
        except (OSError, ValueError) as fault:
            why = getattr(fault, "strerror", None) or "not a usable path"
            problem = f"refers to the file {path}, which cannot be read ({why})"
            return Secret(reference=reference, problem=problem, remedy="make the file readable for this process")
        if len(raw) > _MAX_FILE_BYTES:
            problem = f"refers to the file {path}, which is larger than any secret"
            return Secret(reference=reference, problem=problem, remedy="refer to a file with nothing but the secret")
        # editors, and what writes secrets into containers, end a file with line breaks; nothing else is taken off
        return checked_secret(value.rstrip("\r\n"), reference=reference, is_exposed=bool(mode & _OTHERS_READ_MODE))


def invisible_end(text: str) -> str:
    """Describe an invisible character at either end of a text; else return "".

    White space, control and format characters, and those of no meaning; nothing else of the text is named.
    """
    for where, char in (("begins", text[:1]), ("ends", text[-1:])):
        if char and unicodedata.category(char)[0] in "CZ":
            return f"{where} with a character that cannot be seen (U+{ord(char):04X})"
    return ""


def checked_secret(value: str, *, reference: str, is_plain: bool = False, is_exposed: bool = False) -> Secret:
    """Make a Secret; it has a problem where it is empty or an end is invisible."""
    problem, remedy = "", ""
    if not value:
        problem, remedy = f"is empty ({reference})", "give a value that is not empty"
    elif found := invisible_end(value):
        problem, remedy = f"({reference}) {found}", "remove it: it would be part of the value"
    return Secret(
        value,
        reference=reference,
        problem=problem,
        remedy=remedy,
        is_plain=is_plain,
        is_exposed=is_exposed,
    )
