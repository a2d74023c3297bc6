"""Calls to a declared provider, made as its page describes them."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from providers.api_calls import Authorize, Caller, ClientCredentials, basic_auth
from providers.contract import (
    Account,
    Answer,
    Capability,
    Client,
    CreateRequest,
    HttpAnswer,
    JournalPage,
    MoneyRequest,
    Page,
    Transport,
)
from providers.decoding import Unreadable, json_object, json_value, word
from providers.engine.errors import InvalidCreate, WebhookNeedsSecret, namer, token_namer
from providers.engine.page import CallSection, JournalSection, ListSection, MoneySection, ProviderPage, SignedCalls
from providers.engine.pointers import fill, first, merged, pointer
from providers.engine.xml_decoding import xml_text
from providers.errors import ProviderError, UnsupportedByProvider
from providers.http import require_https
from providers.listing import Extent, Lister, after, extent, last_id, text_of, things_at
from providers.signing import hmac_sha256
from statemachine.errors import InvalidAmount
from statemachine.money import exponent, from_minor

#: Writes Decimal("4.50") as the number 4.50: a float would not be exact.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_things: Final = msgspec.json.Decoder(list[msgspec.Raw])
_flag: Final = msgspec.json.Decoder(bool)
_TYPES: Final = {"json": "application/json", "form": "application/x-www-form-urlencoded", "xml": "application/xml"}


#: Pages of a journal that are walked back for its beginning.
_MAX_PAGES_BACK: Final = 100


class DeclaredClient(Client):
    """Calls to one account of a declared provider."""

    def __init__(
        self,
        page: ProviderPage,
        account: Account,
        transport: Transport,
        clock: Callable[[], datetime],
        *,
        allow_loopback: bool,
    ) -> None:
        self._page, self._clock, self._allow_loopback = page, clock, allow_loopback
        self._secrets = {f"secrets.{name}": value for name, value in account.secrets.items()}
        self._title = page.provider.title
        calls = page.calls
        create = calls.create or CallSection()
        self.is_create_idempotent = create.is_idempotent
        hours = create.remembered_hours
        self.create_is_remembered_for = None if hours is None else timedelta(hours=hours)
        self._headers: dict[str, str] = fill(calls.headers, self._secrets)
        authorize: Authorize = self._static
        forget: Callable[[], None] | None = None
        if calls.bearer:
            self._headers["authorization"] = f"Bearer {fill(calls.bearer, self._secrets)}"
        if calls.basic:
            user, password = fill(calls.basic, self._secrets)
            self._headers["authorization"] = basic_auth(user, password)
        if calls.sign is not None:
            authorize = _Signer(calls.sign, self._headers, self._secrets, clock).headers
        if calls.oauth is not None:
            tokens = ClientCredentials(
                account.base_url + calls.oauth.path,
                fill(calls.oauth.id, self._secrets),
                fill(calls.oauth.secret, self._secrets),
                transport,
                clock,
                token_namer(page),
                scope=quote(calls.oauth.scope, safe=""),
            )
            authorize, forget = tokens.header, tokens.forget
        self._caller = Caller(account.base_url, transport, authorize, namer(page), forget_token=forget)
        self._lister = Lister(calls.list.size if calls.list is not None else 1)

    async def create(self, request: CreateRequest) -> Answer:
        """Create at the provider, or return what this idempotency key made.

        Raises InvalidCreate, before anything is sent, where a further field is missing or not the caller's to say, and
        InvalidAmount where the provider's unit cannot state the amount.
        """
        call = _required(self._page.calls.create)
        values = self._values(request)
        self._check(call, request)
        fields = merged(_filled(call.defaults, values), dict(request.extra), _filled(call.fields, values))
        self._check_urls(fields)
        path = self._path(call, request.kind)
        try:
            answer = await self._send(call, fill(path, values), values, fields, attempts=call.attempts)
        except ProviderError as error:
            if not call.is_idempotent and error.is_ambiguous:
                error.may_retry = False
            raise
        ref = fill(call.ref, values) if call.ref else None
        kind = request.kind if request.kind in self._page.kind else self._page.provider.default_kind
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the provider's current word on one payment."""
        return await self._about(_required(self._page.calls.fetch), kind, ref)

    async def cancel(self, kind: str, ref: str) -> Answer:
        """Cancel before payment."""
        return await self._about(_required(self._page.calls.cancel), kind, ref)

    async def capture(self, request: MoneyRequest) -> Answer:
        """Capture so much of an authorised payment."""
        return await self._move_money(_required(self._page.calls.capture), request)

    async def refund(self, request: MoneyRequest) -> Answer:
        """Give back so much of a paid payment."""
        return await self._move_money(_required(self._page.calls.refund), request)

    def repeats_within(self, call: Capability) -> timedelta | None:
        """Return how long a repeated capture or refund counts as the same one."""
        calls = self._page.calls
        section = calls.capture if call is Capability.CAPTURE else calls.refund
        if section is None or not section.is_idempotent:
            return timedelta(0)
        return None if section.remembered_hours is None else timedelta(hours=section.remembered_hours)

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        """Fetch the page at `position` of what was created from `since` to before `until`."""
        listed = self._page.calls.list
        if listed is None or not listed.path:
            raise UnsupportedByProvider
        query = {**listed.query, **_range(listed, since, until)}
        if position is not None:
            query[listed.cursor] = position

        async def ask(size: int) -> HttpAnswer:
            asked = urlencode({**query, listed.limit: size})
            return await self._caller.call("GET", f"{listed.path}?{asked}", headers=self._extra_headers(None))

        kind = listed.kind or self._page.provider.default_kind
        return await self._lister.page(
            (since, until), position, kind, ask, lambda body, size: page_extent(listed, body, size, position)
        )

    async def journal_page(self, since: datetime, position: str | None) -> JournalPage:
        """Fetch the events after `position`, or from `since` on where that is None."""
        log = self._page.calls.journal
        if log is None or not log.path:
            raise UnsupportedByProvider
        if log.older:
            return await self._newest_first(log, since, position)
        begin = _range(log, since, since) if position is None else {log.cursor: position}
        return await self._events(log, begin)

    async def _newest_first(self, log: JournalSection, since: datetime, position: str | None) -> JournalPage:
        """Fetch the events after `position` of a list that begins with the newest one.

        Without a position the last event before `since` is one. Where there is none, the pages are walked back.
        """
        if position is None:
            before = await self._events(log, {log.until: _range(log, since, since)[log.until]}, size=1)
            position = before.position
        if position is not None:
            return _turned(log, await self._events(log, {log.cursor: position}))
        begin: dict[str, str] = {log.since: _range(log, since, since)[log.since]}
        for walked in range(_MAX_PAGES_BACK):
            page = await self._events(log, begin)
            if not page.has_more:
                return replace(_turned(log, page), has_more=walked > 0)
            begin[log.older] = str(page.position)
        raise ProviderError("the list of events begins too long ago: set a later start of the journal")

    async def _events(self, log: JournalSection, begin: Mapping[str, str], *, size: int | None = None) -> JournalPage:
        """Fetch one page of events as it stands; its position is that of the last one."""
        asked = urlencode({**log.query, **begin, log.limit: size or log.size})
        answer = await self._caller.call("GET", f"{log.path}?{asked}", headers=self._extra_headers(None))
        try:
            events, has_more = logged_events(log, answer.body)
        except Unreadable as fault:
            raise ProviderError(f"the page of events cannot be read: {fault}") from None
        return JournalPage(events, _position(log, events), has_more, answer.sent_at)

    async def register_webhook(self, url: str, **details: str) -> Answer:
        """Register our HTTPS URL."""
        require_https(url, allow_loopback=self._allow_loopback)
        call = _required(self._page.calls.register)
        for name in call.needs.get("webhook", ()):
            if not details.get(name):
                raise WebhookNeedsSecret(param=name)
        values: dict[str, object] = {"url": url}
        fields = merged(_filled(call.defaults, values), dict(details), _filled(call.fields, values))
        answer = await self._send(call, call.path, values, fields)
        return Answer(answer.status, answer.body, answer.sent_at, "webhook")

    # -- one call

    async def _about(self, call: CallSection, kind: str, ref: str) -> Answer:
        values: dict[str, object] = {"ref": quote(ref, safe=""), "id": quote(ref, safe="")}
        path = fill(self._path(call, kind), values)
        answer = await self._send(call, path, values, _filled(call.fields, values), attempts=call.attempts)
        return Answer(answer.status, answer.body, answer.sent_at, kind, ref)

    async def _move_money(self, call: CallSection, request: MoneyRequest) -> Answer:
        """Send a capture or refund; raise InvalidAmount where the unit cannot state it."""
        kind, ref = request.kind, quote(request.ref, safe="")
        amount = amount_out(self._page.money, request.amount_minor, request.currency, self._title)
        values: dict[str, object] = {
            **self._secrets,
            "amount": amount,
            "currency": self._currency(request.currency),
            "key": request.idempotency_key,
            "kind": kind,
        }
        path = fill(self._path(call, kind), {**values, "ref": ref, "id": ref})
        values |= {"ref": request.ref, "id": request.ref}
        fields = merged(_filled(call.defaults, values), _filled(call.fields, values))
        attempts = call.attempts if call.is_idempotent else 1
        answer = await self._send(call, path, values, fields, attempts=attempts)
        return Answer(answer.status, answer.body, answer.sent_at, kind, request.ref)

    async def _send(
        self,
        call: CallSection,
        path: str,
        values: Mapping[str, object],
        fields: Mapping[str, object],
        *,
        attempts: int = 1,
    ) -> HttpAnswer:
        method = call.method or ("POST" if call.body else "GET")
        headers = self._extra_headers(call, values)
        content = b""
        if call.body and method != "GET":
            headers["content-type"] = _TYPES[call.body]
            content = _ENCODERS[call.body](fields) if fields else b""
        if call.query:
            path += ("&" if "?" in path else "?") + urlencode(fill(call.query, values))
        return await self._caller.call(method, path, content=content, headers=headers, attempts=attempts)

    def _path(self, call: CallSection, kind: str) -> str:
        is_known = kind in self._page.kind or len(self._page.kind) == 1
        if not is_known or (call.kinds and kind not in call.kinds):
            raise UnsupportedByProvider
        return call.kinds.get(kind) or call.path

    def _check(self, call: CallSection, request: CreateRequest) -> None:
        for name in call.ours:
            if name in request.extra:
                raise InvalidCreate(f"{name} is not one of the further fields", param=name)
        for name in call.needs.get(request.kind, ()):
            if not request.extra.get(name):
                raise InvalidCreate(f"{self._title} requires {name} for a {request.kind}", param=name)

    def _check_urls(self, fields: Mapping[str, object]) -> None:
        """Raise InsecureUrl for a field that holds a URL where nobody must be sent."""
        for name, value in fields.items():
            if isinstance(value, Mapping):
                self._check_urls(value)
            elif isinstance(value, str) and name.lower().endswith("url"):
                require_https(value, allow_loopback=self._allow_loopback)

    def _values(self, request: CreateRequest) -> dict[str, object]:
        money = self._page.money
        return {
            **self._secrets,
            "amount": amount_out(money, request.amount_minor, request.currency, self._title),
            "currency": self._currency(request.currency),
            "reference": request.reference,
            "key": request.idempotency_key,
            "kind": request.kind,
            "return_url": request.return_url,
            "callback_url": request.callback_url,
        }

    def _currency(self, code: str) -> str:
        return code if self._page.money.currency_case == "upper" else code.lower()

    def _extra_headers(self, call: CallSection | None, values: Mapping[str, object] | None = None) -> dict[str, str]:
        return {} if call is None else dict(fill(call.headers, values or {}))

    async def _static(self, _method: str, _path: str, _body: bytes) -> Mapping[str, str]:
        return self._headers


def _required(call: CallSection | None) -> CallSection:
    if call is None or not (call.path or call.kinds):
        raise UnsupportedByProvider
    return call


class _Signer:
    """Signs each request with its own time."""

    def __init__(
        self,
        section: SignedCalls,
        headers: Mapping[str, str],
        secrets: Mapping[str, str],
        clock: Callable[[], datetime],
    ) -> None:
        self._section, self._headers, self._clock = section, headers, clock
        self._secret = str(fill(section.secret, secrets)).encode()

    async def headers(self, method: str, path: str, body: bytes) -> Mapping[str, str]:
        section, now = self._section, self._clock().astimezone(UTC)
        is_iso = section.time_format == "iso"
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ") if is_iso else str(int(now.timestamp()))
        parts = {"{time}": stamp.encode(), "{body}": body, "{method}": method.encode(), "{path}": path.encode()}
        raw = hmac_sha256(self._secret, *(parts.get(part, part.encode()) for part in section.signed))
        signature = raw.hex() if section.encoding == "hex" else base64.b64encode(raw).decode("ascii")
        stamped = {section.time_header.lower(): stamp} if section.time_header else {}
        return {**self._headers, **stamped, section.header.lower(): signature}


def amount_out(money: MoneySection, minor: int, currency: str, title: str) -> object:
    """Return an amount as the provider takes it; raise InvalidAmount where it cannot."""
    places = money.places.get(currency.upper())
    if money.unit == "minor":
        shift = 0 if places is None else places - exponent(currency)
        scaled = Decimal(minor).scaleb(shift)
        if scaled != int(scaled):
            raise InvalidAmount(f"{title} takes no such fraction of {currency}", param="amount")
        return str(int(scaled)) if money.sends in ("text", "whole") else int(scaled)
    text = from_minor(minor, currency)
    if places is not None:  # fewer than ISO 4217 has
        scaled = Decimal(text).scaleb(places)
        if scaled != int(scaled):
            raise InvalidAmount(f"{title} takes no such fraction of {currency}", param="amount")
        text = f"{Decimal(text):.{places}f}"
    if money.sends == "whole":
        whole = Decimal(text)
        if whole != int(whole):  # a remainder is never rounded away
            raise InvalidAmount(f"{title} takes whole amounts only in this unit", param="amount")
        return str(int(whole))
    return text if money.sends == "text" else Decimal(text)


def page_extent(listed: ListSection, body: bytes, size: int, position: str | None = None) -> Extent:
    """Return the number of things on a page and the next position; raise Unreadable."""
    told = json_object(body) if listed.items else json_value(body)  # a list may have nothing around it
    if listed.absent_ends and not told:
        return extent(0, size, has_more=False, cursor=None)
    things = things_at(pointer(listed.items)(told))
    more = first(listed.more)(told) if listed.more else None
    if listed.next == "last_id":
        return extent(len(things), size, has_more=more, cursor=last_id(things))
    if listed.next == "offset":
        onward = str(int(position or 0) + len(things))
        return extent(len(things), size, has_more=more, cursor=onward if things else None)
    cursor = word(first(listed.next)(told)) if listed.next else None
    if listed.absent_ends:
        more = cursor is not None
    return extent(len(things), size, has_more=more, cursor=cursor)


def _position(log: JournalSection, events: tuple[bytes, ...]) -> str | None:
    """Return the position after these events, None where there are none."""
    if not events:
        return None
    try:
        position = word(first(log.position)(json_value(events[-1])))
    except Unreadable as fault:
        raise ProviderError(f"the page of events cannot be read: {fault}") from None
    if position is None:
        raise ProviderError("the page of events does not say where to go on")
    return position


def _turned(log: JournalSection, page: JournalPage) -> JournalPage:
    """Return a page that begins with its newest event as one that ends with it."""
    events = page.events[::-1]
    return replace(page, events=events, position=_position(log, events))


def logged_events(log: JournalSection, body: bytes) -> tuple[tuple[bytes, ...], bool]:
    """Return each event of a page as it stands there, and whether more follow.

    Raises Unreadable.
    """
    try:
        told = _fields.decode(body)
        events, has_more = _things.decode(told[log.items]), _flag.decode(told[log.more])
    except (msgspec.MsgspecError, KeyError, ValueError, RecursionError) as fault:
        raise Unreadable(f"no list of events: {type(fault).__name__}") from None
    return tuple(bytes(event) for event in events), has_more


def _range(listed: ListSection | JournalSection, since: datetime, until: datetime) -> dict[str, str]:
    def written(at: datetime, *, is_start: bool) -> str:
        if listed.time == "unix":
            return str(int(at.timestamp()) - (1 if is_start and listed.is_after else 0))
        return after(at) if is_start and listed.is_after else text_of(at)

    found = {}
    if listed.since:
        found[listed.since] = written(since, is_start=True)
    if listed.until:
        found[listed.until] = written(until, is_start=False)
    return found


def _filled(tree: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, object]:
    found = fill(tree, values)
    return dict(found)


def _form(fields: Mapping[str, object]) -> bytes:
    """Write nested fields as a form, such as `metadata[reference]=x`."""
    return urlencode(list(_flat("", fields))).encode()


def _flat(prefix: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        pairs = [(f"{prefix}[{name}]" if prefix else str(name), part) for name, part in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(f"{prefix}[{place}]", part) for place, part in enumerate(value)]
    else:
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        return [(prefix, text)]
    return [each for name, part in pairs for each in _flat(name, part)]


_ENCODERS: Final[Mapping[str, Callable[[Mapping[str, object]], bytes]]] = {
    "json": _encoder.encode,
    "form": _form,
    "xml": xml_text,
}
