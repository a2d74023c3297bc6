"""Counters of the sandbox by provider."""

from collections import Counter, defaultdict
from typing import Any


class Counts:
    """Counters that only grow; `report()` is what `/_control/counts` answers."""

    def __init__(self) -> None:
        self.requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.rate_limited: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def request(self, provider: str, answer: str) -> None:
        """One API call was answered with the status `answer`, or with `timeout`."""
        self.requests[provider][answer] += 1
        if answer == "429":
            self.rate_limited[provider] += 1

    def outcome(self, provider: str, name: str) -> None:
        """Count an event or attempt that ended as `name`: lost, delivered and so on."""
        self.outcomes[provider][name] += 1

    def report(self) -> dict[str, Any]:
        """All counters as plain JSON values."""
        return {
            "requests": {name: dict(value) for name, value in self.requests.items()},
            "rate_limited": dict(self.rate_limited),
            "events": dict(self.events),
            "attempts": dict(self.attempts),
            "outcomes": {name: dict(value) for name, value in self.outcomes.items()},
        }
