"""Errors of the console, each with its HTTP status, in words for its users."""

from datetime import timedelta
from typing import ClassVar

from statemachine.errors import ServiceError


class ConsoleHttpsRequired(ServiceError):
    """The console is served over HTTPS only: plain HTTP could be read on the way."""

    type = "authorization_error"
    code = "https_required"
    status = 403


class NotLoggedIn(ServiceError):
    """You are not logged in, or your session has ended: log in and try again."""

    type = "authentication_error"
    code = "not_logged_in"
    status = 401


class RoleMissing(ServiceError):
    """Your role does not allow this; ask an admin of this console."""

    type = "authorization_error"
    code = "role_missing"
    status = 403


class PasswordIsTemporary(ServiceError):
    """Your password was set by an admin: change it first, on your own page."""

    type = "authorization_error"
    code = "password_is_temporary"
    status = 403


class SecondFactorRequired(ServiceError):
    """This console demands a second factor: set it up first, on your own page."""

    type = "authorization_error"
    code = "second_factor_required"
    status = 403


class OidcRefused(ServiceError):
    """The OpenID Connect provider's answer opens nothing here."""

    type = "authentication_error"
    code = "oidc_refused"
    status = 403


class OidcFailed(ServiceError):
    """The OpenID Connect provider cannot be used now; log in again in a while."""

    type = "api_error"
    code = "oidc_failed"
    status = 502


class ExportBrokenOff(ServiceError):
    """The export ends before its last row: the session ended, or the service stops."""

    type = "api_error"
    code = "export_broken_off"
    status = 503


class NotFromHere(ServiceError):
    """The form is not from this console, and did nothing; open the page again."""

    type = "authorization_error"
    code = "forged_request"
    status = 403


class WrongLogin(ServiceError):
    """The name or the password is wrong, or the person may not log in any more."""

    type = "authentication_error"
    code = "wrong_login"
    status = 401


class TooManyLogins(ServiceError):
    """Too many log-ins were tried."""

    type = "rate_limit_error"
    code = "too_many_logins"
    status = 429
    retryable: ClassVar[bool] = True

    def __init__(self, wait: timedelta) -> None:
        self.retry_after = max(1, int(wait.total_seconds()))
        minutes = -(-self.retry_after // 60)
        how_long = f"{minutes} minutes" if minutes > 1 else f"{self.retry_after} seconds"
        super().__init__(f"too many log-ins were tried with this name or from your network; try again in {how_long}")


class InvalidForm(ServiceError):
    """Something that the form needs is missing or wrong."""

    type = "invalid_request_error"
    code = "invalid_form"
    status = 400
