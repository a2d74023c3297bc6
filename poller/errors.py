"""Errors of a reconciliation."""

from typing import ClassVar

from statemachine.errors import ServiceError


class ReconciliationRunning(ServiceError):
    """Another process is reconciling this account; only one at a time may."""

    type = "conflict_error"
    code = "reconciliation_running"
    status = 409
    retryable: ClassVar[bool] = True


class ReconciliationPaused(ServiceError):
    """The provider gives no answers now.

    What was found is kept, and the reconciliation continues from there.
    """

    code = "reconciliation_paused"
    status = 503
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait  #: seconds to wait first, where the provider said so
