"""Error answers of a declared provider, named by its page."""

from collections.abc import Callable, Mapping
from typing import Final, get_args

from providers.contract import HttpAnswer
from providers.decoding import Unreadable, json_value, retry_after, sane_wait, word
from providers.engine.page import MessageSection, ProviderPage, WaitSection
from providers.engine.pointers import InvalidPage, first
from providers.engine.xml_decoding import xml_value
from providers.errors import ProviderError
from providers.masking import masked_words
from statemachine.errors import ErrorType, ServiceError, type_for_status

ErrorNamer = Callable[[HttpAnswer], ProviderError]

_TYPES: Final[Mapping[str, ErrorType]] = {name: name for name in get_args(ErrorType)}

#: Values above this are instants, below it spans: no window lasts thirty years.
_FIRST_INSTANT: Final = 1e9


class InvalidCreate(ProviderError):
    """The request lacks what the provider requires; it was not sent."""

    status = 400

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, type="invalid_request_error", param=param)
        self.code = "invalid_create"  # ours: the provider was not asked


class WebhookNeedsSecret(ServiceError):
    """A webhook without a secret_key carries no authentication and is rejected here."""

    type = "invalid_request_error"
    code = "webhook_needs_secret"
    status = 422


def namer(page: ProviderPage) -> ErrorNamer:
    """Compile `[errors]`: name an error answer by message, code or status.

    Total on any body. Carries at most 200 masked characters of the provider's message and nothing else of the body.
    """
    section, title = page.errors, page.provider.title
    code_of, message_of = first(section.code or "/code"), first(section.message)
    param_of, type_of = first(section.param or "/param"), first(section.type) if section.type else None
    codes, by_status = section.codes, _statuses(section.statuses)
    decode = json_value if page.calls.format == "json" else xml_value
    retry = frozenset(section.retry)

    def name_error(answer: HttpAnswer) -> ProviderError:
        told = _content(answer.body, decode)
        code = word(code_of(told))
        message = masked_words(message_of(told))
        row, known = _row(section.messages, message), codes.get(code or "")
        own_type = _TYPES.get(word(type_of(told)) or "") if type_of is not None else None
        status_type = by_status.get(answer.status) or type_for_status(answer.status)
        is_transient = answer.status in retry
        kind = row.type if row else known.type if known else own_type or status_type
        if is_transient and row is not None:  # whatever the words are
            kind = status_type
        is_retried = is_transient or (row is not None and answer.status in row.retry_on) or bool(known and known.retry)
        return ProviderError(
            f"{title} answered {answer.status}" + (f": {message}" if message else ""),
            type=kind,
            provider_code=masked_words(code) or None,
            http_status=answer.status,
            param=_param(param_of(told)) or (row.param if row else None),
            may_retry=is_retried,
            retry_after=_wait(answer, section.wait) if is_transient else None,
            is_ambiguous=answer.status >= 500,
        )

    return name_error


def token_namer(page: ProviderPage) -> ErrorNamer:
    """Compile the errors of the token's call: nothing was asked for yet."""
    name_error = namer(page)
    by_status = _statuses(page.errors.token_statuses)

    def name_token_error(answer: HttpAnswer) -> ProviderError:
        error = name_error(answer)
        error.is_ambiguous = False
        error.type = by_status.get(answer.status, error.type)
        return error

    return name_token_error


def _statuses(told: Mapping[str, ErrorType]) -> dict[int, ErrorType]:
    try:
        return {int(status): kind for status, kind in told.items()}
    except ValueError:
        raise InvalidPage("a status is three digits", ("errors", "statuses")) from None


def _content(body: bytes, decode: Callable[[bytes], object]) -> object:
    """Return what an answer says, an object or a list; None where it is unreadable."""
    try:
        return decode(body)
    except Unreadable:
        return None


def _row(rows: list[MessageSection], message: str) -> MessageSection | None:
    for row in rows:
        if message == row.message or (row.is_prefix and message.startswith(row.message)):
            return row
    return None


def _param(told: object) -> str | None:
    if isinstance(told, dict):  # the fields that are wrong, each with why
        return word(next(iter(told), None))
    return masked_words(word(told)) or None


def _wait(answer: HttpAnswer, section: WaitSection | None) -> float | None:
    """Return the seconds to wait, None for back-off.

    The page's header counts before Retry-After.
    """
    if section is not None:
        text = answer.headers.get(section.header.lower(), "").strip()
        whole, _, fraction = text.partition(".")
        if text.isascii() and whole.isdigit() and len(whole) <= 12 and (not fraction or fraction.isdigit()):
            value = float(text)
            is_instant = section.unit == "unix" or (section.unit == "auto" and value > _FIRST_INSTANT)
            return sane_wait(value - answer.sent_at.timestamp() if is_instant else value)
    return retry_after(answer.headers, answer.sent_at)
