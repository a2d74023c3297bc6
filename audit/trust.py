"""Whom the audit believes: the keys of seals, since when rows are sealed by one, and webhook keys that are gone."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from storage.hashing import Sealer


@dataclass(frozen=True, slots=True)
class Trust:
    """What stands outside the database and is believed by the audit."""

    sealer: Sealer
    keyed_since: datetime | None = None  #: rows of before then may be sealed without a key
    retired_keys: frozenset[str] = frozenset()  #: webhook keys that are gone by name: "account/key id"


@dataclass(slots=True)
class Seals:
    """Opens seals, and counts by which key they were made; "" for those without a key."""

    trust: Trust
    opened: Counter[str] = field(default_factory=Counter)

    def problem(self, content: bytes, seal: str | None, at: datetime, changed: str) -> str | None:
        """Yield what is wrong with a row that was sealed at that instant; `changed` are the words for other content."""
        key = self.trust.sealer.key_of(content, seal)
        if key is None:
            return changed
        if key == "" and self.trust.sealer.is_keyed and not self.is_of_before(at):
            return f"{changed}, or was sealed without a key"
        self.opened[key] += 1
        return None

    def is_of_before(self, at: datetime) -> bool:
        """True for a row of the time when nothing was sealed by a key."""
        return self.trust.keyed_since is not None and at < self.trust.keyed_since

    def has_none(self, seal: str | None, at: datetime) -> bool:
        """True for a row of before its table had seals, where such a row is believed; it is counted."""
        if seal is not None or (self.trust.sealer.is_keyed and not self.is_of_before(at)):
            return False
        self.opened[""] += 1
        return True
