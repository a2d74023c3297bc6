"""The refusals of the way in, each with its HTTP status."""

from typing import ClassVar

from statemachine.errors import ServiceError


class UnknownAccount(ServiceError):
    """There is no such account here."""

    type = "not_found_error"
    code = "unknown_account"
    status = 404


class UnknownToken(ServiceError):
    """The token in the URL was not issued here."""

    type = "not_found_error"
    code = "unknown_token"
    status = 404


class NotHttps(ServiceError):
    """The request did not come over HTTPS."""

    type = "authorization_error"
    code = "https_required"
    status = 403


class BodyTooLarge(ServiceError):
    """The body is larger than this service takes."""

    type = "invalid_request_error"
    code = "body_too_large"
    status = 413


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    type = "invalid_request_error"
    code = "body_too_slow"
    status = 408


class HeadersTooLarge(ServiceError):
    """The headers are more or larger than this service takes."""

    type = "invalid_request_error"
    code = "headers_too_large"
    status = 431


class MalformedRequest(ServiceError):
    """The request is not HTTP/1.1, or is ambiguous; its connection is closed."""

    type = "invalid_request_error"
    code = "malformed_request"
    status = 400


class RequestTooSlow(ServiceError):
    """The headers of the request did not arrive in time."""

    type = "invalid_request_error"
    code = "request_too_slow"
    status = 408


class ExpectationFailed(ServiceError):
    """The request expects something other than 100-continue."""

    type = "invalid_request_error"
    code = "expectation_failed"
    status = 417


class UnsupportedRequest(ServiceError):
    """The method CONNECT, or a Transfer-Encoding other than chunked."""

    type = "invalid_request_error"
    code = "not_implemented"
    status = 501


class UnsupportedVersion(ServiceError):
    """The version of HTTP is neither 1.1 nor 1.0."""

    type = "invalid_request_error"
    code = "unsupported_http_version"
    status = 505


class TooManyUnverified(ServiceError):
    """Too many deliveries of this client were not authentic."""

    type = "rate_limit_error"
    code = "too_many_unverified"
    status = 429
    retryable: ClassVar[bool] = True


class IntakeFull(ServiceError):
    """More deliveries wait to be committed than this process may hold."""

    type = "api_error"
    code = "intake_full"
    status = 503
    retryable: ClassVar[bool] = True


class ClientGone(ServiceError):
    """The client went away before its body had arrived; there is nobody to answer."""

    type = "invalid_request_error"
    code = "client_gone"
    status = 400
