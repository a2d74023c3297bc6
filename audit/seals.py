"""Seal verification, and the trust anchors of an audit."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from storage.hashing import Sealer


@dataclass(frozen=True, slots=True)
class Trust:
    """Trust anchors of an audit: keys and dates that stand outside the database."""

    sealer: Sealer
    keyed_since: datetime | None = None  #: rows of before then may be sealed without a key
    retired_keys: frozenset[str] = frozenset()  #: webhook keys that are gone by name: "account/key id"


@dataclass(slots=True)
class SealVerifier:
    """Verifies seals, and counts them by the key that made them."""

    trust: Trust
    opened: Counter[str] = field(default_factory=Counter)  #: by key id; "" for seals without a key

    def problem(self, content: bytes, seal: str | None, at: datetime, changed: str) -> str | None:
        """Verify the seal of a row that was sealed at `at`; return the problem, or None.

        `changed` is the message for content that the seal does not cover.
        """
        key = self.trust.sealer.key_of(content, seal)
        if key is None:
            return changed
        if key == "" and self.trust.sealer.is_keyed and not self.predates_keys(at):
            return f"{changed}, or was sealed without a key"
        self.opened[key] += 1
        return None

    def predates_keys(self, at: datetime) -> bool:
        """Return whether a row of this instant is from before rows were sealed with a key."""
        return self.trust.keyed_since is not None and at < self.trust.keyed_since

    def predates_seals(self, seal: str | None, at: datetime) -> bool:
        """Return whether an unsealed row may be older than seals; count it if so."""
        if seal is not None or (self.trust.sealer.is_keyed and not self.predates_keys(at)):
            return False
        self.opened[""] += 1
        return True
