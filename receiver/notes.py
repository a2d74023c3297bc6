"""Counts and logs what became of each delivery; under load a line of the log stands for many."""

from collections.abc import Callable

import structlog

from statemachine.errors import ServiceError
from statemachine.tally import Counts, counts
from storage.intake import Outcome

log = structlog.get_logger()

#: What a refusal is counted as, by its status; any other is "refused".
_REFUSALS = {401: "unverified", 429: "limited", 500: "failed", 503: "unavailable"}


class Notes:
    """What the way in has done since the process began."""

    def __init__(self, sample: Callable[[str], int]) -> None:
        self._sample = sample
        self.answered: Counts = counts()  #: by account, "" where none is named, and what became of it
        self.unverified: Counts = counts()  #: by account and the reason

    def answer(self, account: str, request_id: str, outcome: Outcome) -> None:
        """What was recorded, or refused, is counted and logged."""
        if isinstance(outcome, ServiceError):
            self.answered[account, _REFUSALS.get(outcome.status, "refused")] += 1
            log.info("delivery.refused", request_id=request_id, code=outcome.code, status=outcome.status)
            return
        is_duplicate, is_variant = outcome.is_duplicate, outcome.is_variant
        self.answered[account, "duplicate" if is_duplicate else "variant" if is_variant else "recorded"] += 1
        event = "delivery.duplicate" if is_duplicate else "delivery.recorded"
        count = self._sample(event)
        if count:
            log.info(
                event,
                account=account,
                request_id=request_id,
                message_id=outcome.id,
                is_variant=is_variant,
                sampled=count,
            )

    def abandon(self, account: str, request_id: str) -> None:
        """There was nobody left to answer."""
        self.answered[account, "abandoned"] += 1
        log.info("delivery.abandoned", request_id=request_id)

    def reject(self, account: str, request_id: str, reason: str, client: str, *, is_kept: bool) -> None:
        """It was not authentic; `reason` is one of DeliveryRejected.REASONS."""
        self.unverified[account, reason] += 1
        log.warning(
            "delivery.rejected",
            account=account,
            request_id=request_id,
            reason=reason,
            client=client,
            is_kept=is_kept,
        )
