"""Trial deliveries: signed like the provider's, sent to ourselves.

It is about no payment: whatever the provider, it is kept like any other delivery, and nothing follows from it. Only
whoever has the account's webhook key can make one, and could as well have said that a payment is paid.
"""

import json
from typing import Final

from providers.contract import Reading

#: What the body of every trial begins with, and no provider's does.
_BEGINNING: Final = b'{"receipted_trial":'

#: What became of a trial, as its decision says it.
READING: Final = Reading(note="a trial of receipted doctor; it is about no payment")


def body(name: str, *, size: int = 0) -> bytes:
    """Return the body of a trial of that name, of at least this many bytes.

    It has what a program that reads JSON and writes it again changes: spaces, an escape, and a number's form.
    """
    head = _BEGINNING + json.dumps(name).encode() + b', "caf\\u00e9": 1.50,  "filling":"'
    return head + b"x" * max(0, size - len(head) - 2) + b'"}'


def is_trial(given: bytes) -> bool:
    """Return whether the body is a trial's."""
    return given.startswith(_BEGINNING)
