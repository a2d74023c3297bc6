"""Errors of sinks' settings and addresses, and a handler's request to retry."""

import math
from typing import ClassVar

from statemachine.errors import ServiceError


class InvalidSink(ServiceError):
    """A sink's settings cannot work; the program must not start with them."""

    code = "invalid_sink"


class InvalidSigningKey(InvalidSink):
    """A signing key is missing, not `whsec_` with base64, or not 24 to 64 bytes."""

    code = "invalid_signing_key"


class InsecureSinkUrl(InvalidSink):
    """A sink's URL is not https:// without credentials, or a broker's not with TLS.

    It names a host as well.
    """

    code = "insecure_sink_url"


class InvalidHandler(InvalidSink):
    """A handler cannot be found, or is not callable."""

    code = "invalid_handler"


class InvalidSchedule(InvalidSink):
    """A back-off schedule must hold positive delays and allow at least one attempt."""

    code = "invalid_schedule"


class AddressRefused(ServiceError):
    """A host has an address that is neither public nor allowed; nothing was sent."""

    code = "address_refused"


class RetryLater(ServiceError):
    """A handler is not done: retry after so many seconds, 10 hours at most."""

    code = "retry_later"
    retryable: ClassVar[bool] = True

    def __init__(self, seconds: float) -> None:
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError("RetryLater needs a finite number of seconds, 0 or more")
        self.seconds = float(seconds)
        super().__init__()
