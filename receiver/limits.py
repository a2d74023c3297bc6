"""How many deliveries that are not authentic one client may send to one account; authentic ones are never limited."""

from collections import OrderedDict

from receiver.peer import household

#: Clients remembered at once; the one heard of longest ago is forgotten first.
_CLIENTS = 10_000


class UnverifiedLimit:
    """A bucket per client and account that holds `per_minute` refusals and refills evenly."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def allows(self, client: str, account: str, at: float) -> bool:
        """Count one refusal at an instant (seconds, any origin); whether it is within the limit."""
        key = (household(client), account)
        level, since = self._buckets.pop(key, (self._capacity, at))
        level = min(self._capacity, level + max(0.0, at - since) * self._capacity / 60)
        is_within = level >= 1
        self._buckets[key] = (level - 1 if is_within else level, at)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return is_within
