"""What can go wrong with a reconciliation."""

from typing import ClassVar

from statemachine.errors import ServiceError


class ReconciliationRunning(ServiceError):
    """Another process is walking this account now; only one at a time may."""

    type = "conflict_error"
    code = "reconciliation_running"
    status = 409
    retryable: ClassVar[bool] = True


class ReconciliationPaused(ServiceError):
    """The provider gives no answers now; what was found is kept, and the walk goes on from there when asked to."""

    code = "reconciliation_paused"
    status = 503
    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait  #: seconds to wait first, where the provider said so
