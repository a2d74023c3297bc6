"""Finds the one record that a person means by a part of its id."""

import re
from typing import Final

from receipted.cli.exits import InvalidInput
from storage import search
from storage.database import Unit
from storage.errors import NotFound
from storage.ids import WEBHOOK_PREFIX
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment, RejectedDelivery
from storage.tables_support import ApiKey, AuditRun, ConsoleSession, Reconciliation

_SHORTEST: Final = 8
_WHOLE: Final = 32  #: hexadecimal digits of a UUID
_SHOWN: Final = 10
_DIGITS: Final = re.compile(r"[0-9a-f]+", re.ASCII)
_NAMES: Final[dict[type[search.Found], str]] = {
    Payment: "payment",
    InboxMessage: "inbox message",
    OutboxMessage: "outbox message",
    RejectedDelivery: "rejected delivery",
    Reconciliation: "reconciliation",
    ApiKey: "API key",
    ConsoleSession: "session",
    OperatorAction: "action",
    AuditRun: "audit run",
}


def find_id(unit: Unit, model: type[search.Found], text: str) -> str:
    """The whole id of the one record whose id is, begins with or ends with the text; dashes do not count.

    Raises InvalidInput for what cannot be part of an id, is too short or fits several, and NotFound. Ids that were
    made together begin alike, so an end tells more than a beginning.
    """
    name = _NAMES[model]
    part = text.strip().lower().removeprefix(WEBHOOK_PREFIX).replace("-", "")
    if not _DIGITS.fullmatch(part) or len(part) > _WHOLE:
        raise InvalidInput(f"{text!r} is no id of a {name}", param="id")
    if len(part) < _SHORTEST:
        raise InvalidInput(f"{text!r} is too short: give at least {_SHORTEST} characters of the id", param="id")
    found = search.ids_with(unit, model, part, limit=_SHOWN + 1)
    if not found:
        raise NotFound(f"no {name} {text}", param="id")
    if len(found) > 1:
        candidates = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise InvalidInput(f"{text!r} fits more than one {name}: {candidates}", param="id", code="ambiguous_id")
    return found[0]
