"""Errors of what merchants and operators ask for."""

from typing import ClassVar

from statemachine.errors import ServiceError


class UnknownAccountName(ServiceError):
    """No account of this name is configured."""

    type = "not_found_error"
    code = "unknown_account"
    status = 404


class InvalidCommand(ServiceError):
    """The command asks for something that makes no sense here."""

    type = "invalid_request_error"
    code = "invalid_command"
    status = 400


class ReferenceConflict(ServiceError):
    """The reference was used before, for a payment with other parameters."""

    type = "conflict_error"
    code = "idempotency_key_conflict"
    status = 409
    is_for_ever: ClassVar[bool] = True


class NotNamedYet(ServiceError):
    """The provider has not named this payment yet, so it cannot be asked; call later."""

    type = "conflict_error"
    code = "not_named_yet"
    status = 409
    retryable: ClassVar[bool] = True


class CreateUnanswered(ServiceError):
    """An earlier create call of this reference has no answer, and is not sent again."""

    type = "conflict_error"
    code = "create_outcome_unknown"
    status = 409
    retryable: ClassVar[bool] = True


class AnswerUnclear(ServiceError):
    """The provider's answer could not be understood; it is kept, and changes nothing."""

    code = "answer_unclear"
    status = 502
    retryable: ClassVar[bool] = True


class CancelNotSent(ServiceError):
    """Nothing was cancelled: the provider could not be asked first; call again later."""

    code = "cancel_not_sent"
    status = 503
    retryable: ClassVar[bool] = True


class CancelUnanswered(ServiceError):
    """It is not known yet whether the payment is cancelled; the provider is asked."""

    code = "cancel_outcome_unknown"
    status = 503
    retryable: ClassVar[bool] = True


class MoneyExceeded(ServiceError):
    """More was wanted than can be captured or refunded by the sums; nothing was sent."""

    type = "conflict_error"
    code = "amount_exceeded"
    status = 409


class MoneyUnanswered(ServiceError):
    """It is not known whether the money has moved; call again with the same key."""

    code = "money_outcome_unknown"
    status = 503
    retryable: ClassVar[bool] = True


class MoneyInDoubt(ServiceError):
    """An earlier capture or refund of the payment has no known outcome yet."""

    type = "conflict_error"
    code = "money_in_doubt"
    status = 409
    retryable: ClassVar[bool] = True


class WishConflict(ServiceError):
    """The key was used before, for another amount."""

    type = "conflict_error"
    code = "idempotency_key_conflict"
    status = 409
    is_for_ever: ClassVar[bool] = True


class StillApplying(ServiceError):
    """The statement is recorded; another process has not applied it yet."""

    code = "still_applying"
    status = 503
    retryable: ClassVar[bool] = True


class StillRejected(ServiceError):
    """The delivery is still not authentic, and stays in quarantine."""

    type = "conflict_error"
    code = "still_rejected"
    status = 409


class NotRunning(ServiceError):
    """The application is starting or stopping; call again."""

    code = "not_running"
    status = 503
    retryable: ClassVar[bool] = True


class UnusablePassword(ServiceError):
    """The password cannot be taken."""

    type = "invalid_request_error"
    code = "unusable_password"
    status = 400


class UnusableName(ServiceError):
    """The name cannot be taken for a person of the console."""

    type = "invalid_request_error"
    code = "invalid_form"
    status = 400


class Busy(ServiceError):
    """Too many log-ins are being checked just now; try again in a few seconds."""

    type = "rate_limit_error"
    code = "busy"
    status = 503
    retryable: ClassVar[bool] = True


class WrongCode(ServiceError):
    """The code is wrong, was used before, or is over: type the one that is shown now."""

    type = "authentication_error"
    code = "wrong_code"
    status = 401


class FactorUnreadable(ServiceError):
    """The second factor cannot be opened with the service's keys; have it reset."""

    type = "authentication_error"
    code = "factor_unreadable"
    status = 409


class FactorMissing(ServiceError):
    """There is no second factor: set one up first."""

    type = "conflict_error"
    code = "factor_missing"
    status = 409


class FactorExists(ServiceError):
    """There is a second factor already: remove it before another is set up."""

    type = "conflict_error"
    code = "factor_exists"
    status = 409
