"""Contract of a provider: verify, delivery key, parse, lifecycles, and a client.

See docs/adding-a-provider.md.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from operator import is_
from typing import ClassVar, Final, Protocol

import msgspec
from msgspec.structs import force_setattr
from pydantic import BaseModel, ConfigDict

from providers import decoding
from providers.errors import UnsupportedByProvider
from providers.signing import KeyRing, Window
from statemachine.lifecycle import Lifecycle
from statemachine.names import is_kept, is_name
from statemachine.observation import Observation
from statemachine.phases import Source


class Delivery(msgspec.Struct, frozen=True):
    """One HTTP request from a provider: exact body bytes, and headers in their order.

    Names of headers are lower-case.
    """

    body: bytes
    headers: tuple[tuple[str, str], ...]  #: values decoded as latin-1, which loses nothing

    def header(self, name: str) -> str | None:
        """Return the header's value; None where it is absent or ambiguous.

        Two different values are ambiguous.
        """
        found: str | None = None
        for key, value in self.headers:
            if key == name:
                if found is not None and found != value:
                    return None
                found = value
        return found


class Verified(msgspec.Struct, frozen=True):
    """Result of verification: the key that matched, and the provider's own time."""

    key_id: str
    provider_time: datetime | None = None  #: the signed timestamp, where the scheme has one


#: Verified.key_id of a delivery at a provider that signs nothing.
UNSIGNED: Final = "unsigned"


@dataclass(frozen=True, slots=True)
class Scheme:
    """Authentication of a provider's deliveries, described for people."""

    words: str  #: what is signed or shown, and how
    header: str  #: which holds the signature or the secret, in lower case
    time_header: str | None = None  #: which holds the signed time; None where nothing is dated
    shows_secret: bool = False  #: the header holds the secret itself, so that only its digest may be kept


class Statement(msgspec.Struct, frozen=True):
    """An authentic message as parse() gets it: the recorded bytes, and their origin."""

    source: Source
    body: bytes
    received_at: datetime
    kind: str | None = None  #: which kind was asked for, or which URL was used, where that is known
    ref: str | None = None  #: provider_ref that was asked for, or that a create call gave to what it creates
    http_status: int | None = None  #: of an answer to our own call


class Reading(msgspec.Struct, frozen=True):
    """Meaning of a statement: observations, hints, a note, or why it is unreadable.

    Exactly one of them.

    Of a page of a list, each thing has an observation of its own, so that one that cannot be read takes no other with
    it: one with an id is an observation without a status, so that the provider is asked about it, and one without is an
    observation without a provider_ref, which parks the page after the others are applied.

    Whatever it is made of, every database keeps what it holds (providers/decoding.py): texts are cleaned and cut, and
    an observation whose id, state or money cannot be kept is one that cannot be read.
    """

    observations: tuple[Observation, ...] = ()
    hints: tuple[str, ...] = ()  #: texts that may be a provider_ref or a reference: ask about those payments
    hints_money: bool = False  #: the hints are of money that came: on an ended payment a person must look at it
    hints_account: bool = False  #: something changed somewhere in this account: ask about what is open
    note: str = ""  #: why there is nothing to decide, such as a kind that we do not use
    unreadable: str = ""  #: why an authentic body has no meaning to us; it is parked

    def __post_init__(self) -> None:
        if len(self.observations) == 1 and not (self.hints or self.note or self.unreadable):
            (seen,) = self.observations
            if decoding.observation(seen) is seen:
                return  # as nearly always
        kept = tuple(map(decoding.observation, self.observations))
        if len(kept) == 1 and isinstance(kept[0], str):
            self._become(observations=(), unreadable=kept[0])
        elif not all(map(is_, kept, self.observations)):
            self._become(observations=tuple(map(_left, self.observations, kept)))
        if self.hints or self.note or self.unreadable:
            self._become(
                hints=tuple(filter(is_name, self.hints)),
                note=decoding.words(self.note),
                unreadable=decoding.words(self.unreadable),
            )

    def _become(self, **values: object) -> None:
        for name, value in values.items():
            force_setattr(self, name, value)


def _left(seen: Observation, kept: Observation | str) -> Observation:
    """Reduce an unkeepable observation to its id, to be asked about, else park."""
    if isinstance(kept, Observation):
        return kept
    kind = seen.kind if seen.kind is not None and is_kept(seen.kind, decoding.MAX_WORD) else None
    ref = seen.provider_ref if seen.provider_ref is not None and is_name(seen.provider_ref) else None
    return Observation(seen.source, kind=kind, provider_ref=ref, as_of=seen.as_of, note=f"unreadable: {kept}")


class ProviderOptions(BaseModel):
    """Settings of one account that are the provider's own; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Budget:
    """Number of requests that an account may send in a number of seconds."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A merchant's request for a payment; `idempotency_key` is the same in repeats."""

    kind: str
    amount_minor: int
    currency: str
    reference: str  #: the merchant's own id, unique per account and kind
    idempotency_key: str
    return_url: str | None = None  #: where the payer comes back to; ours, signed
    callback_url: str | None = None  #: the payment's own callback URL; ours, signed
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)  #: the provider's own further fields


@dataclass(frozen=True, slots=True)
class MoneyRequest:
    """A request to capture or refund money; `idempotency_key` is the same in repeats."""

    kind: str
    ref: str  #: provider_ref of the payment
    amount_minor: int  #: of this capture or refund alone
    currency: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's successful answer to our own call, to be recorded verbatim."""

    status: int
    body: bytes
    asked_at: datetime  #: when the request was sent; the answer is true of that instant or later
    kind: str
    ref: str | None = None  #: what was asked about; of a create, the id where the merchant's reference is that


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list, to be recorded verbatim with source `list`."""

    answer: Answer
    count: int  #: how many things it names
    next: str | None  #: where the next page begins, for list_page(); None at the end
    fault: str = ""  #: why the walk ends here although there may be more; the page is to be recorded all the same


@dataclass(frozen=True, slots=True)
class JournalPage:
    """One page of the events that a provider has logged, the oldest first."""

    events: tuple[bytes, ...]  #: each as its webhook delivers it: parse() and delivery_key() read it alike
    position: str | None  #: after them, for the next call; None where the page is empty
    has_more: bool
    asked_at: datetime  #: when the request was sent


class Transport(Protocol):
    """Sends HTTP requests within the account's budget: wait, sign, send.

    See providers/http.py.
    """

    async def turn(self) -> None:
        """Wait until the account may send one more request; sign with the time afterwards."""

    async def send(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> "HttpAnswer":
        """Return the answer, whatever its status; raise ProviderError where there is none."""

    async def pause(self, seconds: float) -> None:
        """Stop sending for this account for these seconds, as the provider asked."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, lower-case headers and at most 1 MiB of body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """One configured account at a provider, with its secrets already read."""

    name: str
    base_url: str  #: without a trailing slash
    secrets: Mapping[str, str] = field(repr=False)


class Capability(StrEnum):
    """A call that a provider may have; what an account does not have is never tried."""

    CREATE = "create"  #: Client.create()
    ASK = "ask"  #: Client.fetch(); without it, silence alarms and what push delivers are all there is
    CANCEL = "cancel"  #: Client.cancel()
    CAPTURE = "capture"  #: Client.capture(), of an authorised payment
    REFUND = "refund"  #: Client.refund(), of a paid payment
    LIST = "list"  #: Client.list_page()
    JOURNAL = "journal"  #: Client.journal_page(): the provider lists its own events
    REGISTER = "register"  #: Client.register_webhook()
    ENDPOINT_STATUS = "endpoint_status"  #: what the provider thinks of our URL; no provider here has it yet


#: By call, the kinds that it is for. A call about the whole account names the kinds that it covers.
Capabilities = Mapping[Capability, frozenset[str]]


class Client:
    """Calls to one provider account; every method raises ProviderError.

    It stands for an error answer, or for none. Provider.capabilities() says which calls the account has; the others
    are never made, and raise UnsupportedByProvider here.
    """

    #: Whether create() may be sent again with the same CreateRequest after an ambiguous outcome.
    is_create_idempotent: bool = True

    #: How long after the first call a repeat still counts as the same one; None for ever. Shorter than documented, so
    #: that a slow repeat is not too late.
    create_is_remembered_for: timedelta | None = None

    async def create(self, request: CreateRequest) -> Answer:
        """Create at the provider. Repeats only where the provider makes a repeat harmless."""
        raise UnsupportedByProvider

    async def fetch(self, kind: str, ref: str) -> Answer:
        """Fetch the provider's current word on one payment.

        Sends one request, or two when a token has to be fetched.
        """
        raise UnsupportedByProvider

    async def cancel(self, kind: str, ref: str) -> Answer:
        """Cancel before payment."""
        raise UnsupportedByProvider

    async def capture(self, request: MoneyRequest) -> Answer:
        """Capture so much of an authorised payment; the answer's `ref` is the payment's."""
        raise UnsupportedByProvider

    async def refund(self, request: MoneyRequest) -> Answer:
        """Give back so much of a paid payment; the answer's `ref` is the payment's."""
        raise UnsupportedByProvider

    def repeats_within(self, call: Capability) -> timedelta | None:
        """Return how long a repeated capture or refund counts as the same one.

        Counted from the first call with its key. None for ever, and zero where a repeat moves money again.
        """
        return timedelta(0)

    async def list_page(self, since: datetime, until: datetime, position: str | None) -> Page:
        """Fetch the page at `position` (None: the first) of what was created in a range.

        The range is from `since` to before `until`.

        All of it is on the pages; at the edges, and where the provider cannot filter, they may hold more. Asks for
        smaller pages where one is too large. A page that cannot be read, or does not say where to go on, is returned
        with its `fault`. Raises ProviderError where the pages lead round in a circle. A repeat is harmless.
        """
        raise UnsupportedByProvider

    async def journal_page(self, since: datetime, position: str | None) -> JournalPage:
        """Fetch the events after `position`, or from `since` on where that is None.

        In an order in which none appears later before a position that was given out. A repeat is harmless. Raises
        ProviderError where the page cannot be read or does not say where to go on.
        """
        raise UnsupportedByProvider

    async def register_webhook(self, url: str, **details: str) -> Answer:
        """Register our HTTPS URL."""
        raise UnsupportedByProvider


#: What the calls are for, in words.
_CALLS: Final[Mapping[Capability, str]] = {
    Capability.CREATE: "to create",
    Capability.ASK: "that can be asked",
    Capability.CANCEL: "to cancel",
    Capability.CAPTURE: "to capture",
    Capability.REFUND: "to refund",
    Capability.LIST: "that lists payments",
    Capability.JOURNAL: "that lists events",
    Capability.ENDPOINT_STATUS: "that shows the state of a webhook",
}


#: Seconds for which the same bytes without an id of their own are one delivery; afterwards they are news.
SAME_BYTES_WINDOW_S: Final = 5


class Provider(ABC):
    """One provider with its account's options; everything but the client is pure."""

    name: ClassVar[str]
    lifecycles: ClassVar[Mapping[str, Lifecycle]]  #: by kind
    options_type: ClassVar[type[ProviderOptions]] = ProviderOptions
    secret_names: ClassVar[tuple[str, ...]] = ()  #: what the client needs
    webhook_key_detail: ClassVar[str | None] = None  #: what register_webhook() calls the key that it passes on
    budget: ClassVar[Budget | None] = None  #: documented; an account may configure another
    default_base_url: ClassVar[str] = ""
    default_kind: ClassVar[str]  #: of `payments create`
    authentication: ClassVar[Scheme | None] = None  #: of verify(), in words; it decides nothing
    id_pattern: ClassVar[re.Pattern[str] | None] = None  #: of hints that are ids: an unknown one is asked about
    required_options: ClassVar[tuple[str, ...]] = ()  #: an account without these is refused at the start
    how_to_register: ClassVar[str] = ""  #: where a person registers our URL, if no call does

    def __init__(self, options: ProviderOptions) -> None:
        self.options = options

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Return the calls that an account with these options has; pure."""

    def can(self, capability: Capability, kind: str | None = None) -> bool:
        """Return whether the account has the call, for this kind or for any."""
        kinds = self.capabilities().get(capability, frozenset())
        return bool(kinds) if kind is None else kind in kinds

    def require(self, capability: Capability, kind: str | None = None) -> None:
        """Raise UnsupportedByProvider unless the account has the call; send nothing."""
        if self.can(capability, kind):
            return
        if capability is Capability.REGISTER:
            hint = f": {self.how_to_register}" if self.how_to_register else ""
            raise UnsupportedByProvider(f"{self.name} documents no call that registers a webhook{hint}")
        what = "" if kind is None else f" for a {kind}"
        raise UnsupportedByProvider(f"{self.name} documents no call {_CALLS[capability]}{what}")

    @abstractmethod
    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        """Verify a delivery; raise DeliveryRejected and nothing else, for any bytes."""

    def challenge(self, query: Mapping[str, str], keys: KeyRing, now: datetime) -> str | None:
        """Return the answer to a question by which the provider tries a URL.

        None where the query is no such question: then a GET of the URL is answered like any other.
        """
        return None

    @abstractmethod
    def delivery_key(self, delivery: Delivery) -> str | None:
        """Return the provider's id of the thing delivered, at most 200 characters; total.

        It is equal for a redelivery. None where the delivery has no id of its own: the same bytes may be news then.
        """

    def identity(self, delivery: Delivery, received_at: datetime, about: str | None = None) -> str:
        """Return the key that a delivery is recorded under: equal ones are one delivery.

        Without an id of its own it is a redelivery only where the same bytes came to the same URL within the same few
        seconds. `about` is our payment of that URL, if any. At most 200 characters; total.
        """
        key = self.delivery_key(delivery)
        if key is not None:
            return decoding.key(key)
        window = int(received_at.timestamp()) // SAME_BYTES_WINDOW_S
        return f"sha256:{sha256(delivery.body).hexdigest()}:{about or 'webhook'}:{window}"

    @abstractmethod
    def parse(self, statement: Statement) -> Reading:
        """Parse an authentic statement; total on any bytes."""

    @abstractmethod
    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        """Build a client for the account; it opens nothing until it is used."""


class Pace(Protocol):
    """An account's right to send, shared by everybody who sends for it."""

    async def turn(self) -> None:
        """Wait until the account may send one more request."""

    async def leave(self) -> None:
        """Return when the request may leave; take another slot if its own has passed."""

    async def pause(self, seconds: float) -> None:
        """Stop sending for the account for these seconds, as the provider asked."""
