"""Providers made from pages."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar, cast

from pydantic import Field, create_model

from providers.contract import (
    Account,
    Budget,
    Capabilities,
    Capability,
    Client,
    Delivery,
    Provider,
    ProviderOptions,
    Reading,
    Statement,
    Transport,
    Verified,
)
from providers.engine import page, reading, signature
from providers.engine.client import DeclaredClient
from providers.engine.pointers import InvalidPage
from providers.signing import KeyRing, Window
from statemachine.lifecycle import Lifecycle

Made = TypeVar("Made")

#: Every declared provider has it: development only.
_LOOPBACK: Final = "allow_loopback_http"


class DeclaredProvider(Provider):
    """A provider as its page describes it, with one account's options filled in."""

    source: ClassVar[page.PageFile]  #: the page
    title: ClassVar[str]  #: its name for people

    def __init__(self, options: ProviderOptions) -> None:
        super().__init__(options)
        given = options.model_dump()
        self.page = _compiled(self.source, lambda: self.source.page(given))
        self._allow_loopback = bool(given.get(_LOOPBACK))
        self._verify = signature.compiled(self.page.signature)
        self._challenge = signature.challenges(self.page.signature)
        self._check_signed_field()
        self._delivery_key = reading.delivery_keys(self.page.delivery, self.page.events)
        self._reader = reading.PageReader(self.page, allow_loopback=self._allow_loopback)

    def capabilities(self) -> Capabilities:
        """Return the calls that the page has a path for, by kind."""
        calls, every = self.page.calls, frozenset(self.page.kind)
        found: dict[Capability, frozenset[str]] = {}
        for capability, call in (
            (Capability.CREATE, calls.create),
            (Capability.ASK, calls.fetch),
            (Capability.CANCEL, calls.cancel),
            (Capability.CAPTURE, calls.capture),
            (Capability.REFUND, calls.refund),
            (Capability.REGISTER, calls.register),
        ):
            if call is not None and (call.path or call.kinds):
                found[capability] = frozenset(call.kinds) or every
        if calls.list is not None and calls.list.path:
            found[Capability.LIST] = frozenset({calls.list.kind}) if calls.list.kind else every
        if calls.journal is not None and calls.journal.path:
            found[Capability.JOURNAL] = every
        return found

    @classmethod
    def with_options(cls, **options: object) -> "DeclaredProvider":
        """Return the provider with these options; raises pydantic's ValidationError."""
        return cls(cls.options_type.model_validate(options))

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify a delivery; raise DeliveryRejected and nothing else, for any bytes."""
        return self._verify(delivery, keys, window, now)

    def key_form(self, secret: bytes) -> str | None:
        """Return the form that a webhook key must have; None where this one has it."""
        return signature.key_form(self.page.signature, secret)

    def _check_signed_field(self) -> None:
        """Raise InvalidPage where something else is read than what is signed."""
        signed, field = self.page.signature.signed, self.page.events.field
        if "{body}" in signed or self.page.signature.mode != "hmac":
            return
        if not field or "{field:" + field + "}" not in signed:
            raise InvalidPage("a field is signed, and the event is read from elsewhere", ("events", "field"))

    def challenge(self, query: Mapping[str, str], keys: KeyRing, now: datetime) -> str | None:
        """Return the answer to the provider's question about the URL, if it is one."""
        return self._challenge(query, keys, now)

    def delivery_key(self, delivery: Delivery) -> str | None:
        """Return the provider's id of the thing delivered, or None; total."""
        return self._delivery_key(delivery)

    def parse(self, statement: Statement) -> Reading:
        """Parse an authentic statement; total on any bytes."""
        return self._reader.read(statement)

    def rule_of(self, statement: Statement) -> int | None:
        """Return which event rule of the page reads a delivery, None where none does."""
        return self._reader.rule_of(statement)

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client for one account; it opens nothing until it is used."""
        return DeclaredClient(self.page, account, transport, clock, allow_loopback=self._allow_loopback)


def declared(source: page.PageFile) -> type[DeclaredProvider]:
    """Make the provider of a page.

    Raises InvalidPage with the file and the line.
    """
    options_type = _options_type(source)
    return _compiled(source, lambda: _made(source, options_type))


def _made(source: page.PageFile, options_type: type[ProviderOptions]) -> type[DeclaredProvider]:
    told = source.page(options_type().model_dump())
    identity = told.provider
    if identity.default_kind not in told.kind:
        raise InvalidPage(f"{identity.default_kind!r} is no kind of this page", ("provider", "default_kind"))
    lifecycles: Mapping[str, Lifecycle] = reading.lifecycles(told)
    budget = identity.budget and Budget(identity.budget.requests, identity.budget.seconds)
    ids = [kind.id_pattern for kind in told.kind.values() if kind.id_pattern]
    register = told.calls.register
    detail = next(iter(register.needs.get("webhook", ())), None) if register is not None else None
    made = type(
        identity.title.replace(" ", ""),
        (DeclaredProvider,),
        {
            "__doc__": f"{identity.title}, as its page describes it.",
            "source": source,
            "title": identity.title,
            "name": identity.name,
            "lifecycles": lifecycles,
            "options_type": options_type,
            "secret_names": tuple(identity.secrets),
            "webhook_key_detail": detail,
            "budget": budget,
            "default_base_url": identity.base_url,
            "default_kind": identity.default_kind,
            "id_pattern": re.compile("|".join(ids)) if ids else None,
            "required_options": tuple(name for name, option in told.options.items() if option.is_required),
            "how_to_register": identity.how_to_register,
            "authentication": signature.described(told.signature),
        },
    )
    found = cast("type[DeclaredProvider]", made)
    found(options_type())  # what it is made of is checked now, and not when an account uses it
    return found


@cache
def built_in(name: str) -> type[DeclaredProvider]:
    """Return the provider whose page is in this package."""
    return declared(page.read(Path(__file__).parent.parent / name / "provider.toml"))


def _compiled(source: page.PageFile, make: Callable[[], Made]) -> Made:
    try:
        return make()
    except InvalidPage as fault:
        path = fault.path or (page.path_to(source.tree, fault.about) if fault.about else None)
        if path and not fault.message.startswith(source.name):
            raise InvalidPage(source.located(fault.message, path), path) from None
        raise


def _options_type(source: page.PageFile) -> type[ProviderOptions]:
    fields: dict[str, Any] = {}
    for name, option in page.option_sections(source).items():
        kinds: dict[str, Any] = {"text": str, "whole": int, "flag": bool}
        kind = Literal[tuple(option.choices)] if option.choices else kinds[option.type]
        bounds: dict[str, Any] = {"ge": option.min, "le": option.max} if option.type == "whole" else {}
        if option.type == "text" and not option.choices:
            bounds = {"pattern": option.pattern or None, "min_length": option.min, "max_length": option.max}
        if option.default is None or (option.type == "text" and not option.choices):
            kind = kind | None
        given = {key: value for key, value in bounds.items() if value is not None}
        fields[name] = (kind, Field(default=option.default, description=option.help or None, **given))
    fields.setdefault(
        _LOOPBACK, (bool, Field(default=False, description="development only: http:// URLs on this machine"))
    )
    identity = source.tree.get("provider", {})
    title = str(identity.get("title", "Declared")).replace(" ", "")
    return cast("type[ProviderOptions]", create_model(f"{title}Options", __base__=ProviderOptions, **fields))
