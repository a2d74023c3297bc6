"""Rate limit of an API key, as its answers state it."""

import math
from dataclasses import dataclass
from datetime import timedelta

from storage.token_buckets import BucketRate, TakenToken


@dataclass(frozen=True, slots=True)
class Allowance:
    """Requests that a key may still send."""

    is_granted: bool
    limit: int  #: requests at once, after a rest
    remaining: int
    reset_seconds: int  #: until the bucket is full again
    retry_after: int  #: until one request is granted; 0 where one is

    def headers(self) -> dict[str, str]:
        """Return the headers; with Retry-After where the request is not granted."""
        found = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_seconds),
        }
        return found if self.is_granted else {**found, "retry-after": str(self.retry_after)}


def allowance(rate: BucketRate, taken: TakenToken) -> Allowance:
    """Describe the bucket after one request.

    A caller that waits as long as it says is granted as much as it says, if nothing else uses the key.
    """
    wait = taken.full_in - (rate.brim - rate.each)
    return Allowance(
        is_granted=taken.is_granted,
        limit=rate.burst,
        remaining=max(0, (rate.brim - taken.full_in) // rate.each) if taken.is_granted else 0,
        reset_seconds=_seconds(taken.full_in),
        retry_after=0 if taken.is_granted else max(1, _seconds(wait)),
    )


def _seconds(duration: timedelta) -> int:
    return math.ceil(duration / timedelta(seconds=1))
