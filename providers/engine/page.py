"""A provider's page: its sections as types, and how it is loaded and checked."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from providers.engine.pointers import InvalidPage, Wanted, fill, placeholders
from statemachine.errors import ErrorType

Pointers = str | list[str]


class PageSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the sections: unknown keys are refused."""


class BudgetSection(PageSection, frozen=True):
    """Number of requests that the provider permits in a number of seconds."""

    requests: int
    seconds: float


class Identity(PageSection, frozen=True):
    """`[provider]`: what it is called, where it is, what its client needs."""

    name: str
    title: str  #: for people
    source: str  #: where the provider says all this
    base_url: str
    default_kind: str
    secrets: list[str] = []
    budget: BudgetSection | None = None
    believes: Literal["push", "answers"] = "push"  #: answers: a delivery is only ever a reason to ask
    how_to_register: str = ""  #: how a person registers the webhook, where there is no call


class OptionSection(PageSection, frozen=True):
    """`[options.x]`: one setting of an account that is the provider's own."""

    type: Literal["text", "whole", "flag"] = "text"
    help: str = ""
    default: str | int | bool | None = None
    choices: list[str] = []
    pattern: str = ""
    min: int | None = None
    max: int | None = None
    is_required: bool = False  #: an account without it is refused at the start


class MoneySection(PageSection, frozen=True):
    """`[money]`: how amounts and currencies are written, and how we write them."""

    unit: Literal["minor", "major"]
    accepts: Literal["any", "number", "text"] = "any"
    sends: Literal["number", "text", "whole"] = "number"  #: whole: text of whole units, where that is exact
    currency_case: Literal["upper", "lower"] = "upper"
    default_currency: str | None = None  #: of an amount that names none; where the provider has one only
    places: dict[str, int] = {}  #: decimal places where the provider differs from ISO 4217


class ChallengeSection(PageSection, frozen=True):
    """A question by which the provider tries, before deliveries, if the URL has a key."""

    query: str  #: the query's name for the text that is to be signed
    pattern: str  #: what that text must match: nothing else is ever signed
    answer: str  #: template of the answer, with {signature}


class SignatureSection(PageSection, frozen=True):
    """`[signature]`: how a delivery is proved to be the provider's."""

    mode: Literal["hmac", "standard_webhooks", "token", "none"]
    words: str = ""  #: for people: what is signed
    header: str = ""
    field: str = ""  #: the form's field that it is in, where it is in no header
    form: Literal["plain", "pairs", "list", "time.signature", "keyed"] = "plain"
    value: str = ""  #: pairs: the name of a signature; list: its version; keyed: of which public key, else of any
    separator: str = ","  #: pairs, keyed: what stands between them
    prefix: str = ""  #: before the signature or the token
    encoding: Literal["hex", "base64"] = "hex"
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    key: str = "text"  #: text, hex, base64 or sha1 (of text); after a colon a prefix to leave out, as base64:whsec_
    signed: list[str] = []  #: parts: {time}, {body}, {header:name}, {field:name}, or literal text
    time: str = ""  #: pairs: the name of the time
    time_header: str = ""
    time_format: Literal["unix", "unix_ms", "iso", "any"] = "unix"
    challenge: ChallengeSection | None = None


class KeySection(PageSection, frozen=True):
    """One way to tell the identity of what a delivery delivers."""

    parts: list[str]
    needs: dict[str, Wanted] = {}
    any_of: list[str] = []  #: at least one of these must be there
    pattern: str = ""  #: what the part must match, where there is one part


class DeliverySection(PageSection, frozen=True):
    """`[delivery]`: what tells a redelivery; else the same bytes within seconds do."""

    key: list[KeySection] = []
    header: str = ""


class PartSection(PageSection, frozen=True):
    """A capture, refund or dispute that has an id of its own."""

    kind: Literal["capture", "refund", "dispute"]
    status: Pointers
    states: dict[str, Literal["pending", "done", "undone"]]  #: every word of its status
    id: Pointers = "/id"
    amount: Pointers = ""  #: of it alone
    currency: Pointers = ""
    each: str = ""  #: in a kind: pointer to the list of them


class RuleSection(PageSection, frozen=True, rename={"means": "as"}):
    """`[[events.rule]]`: what an event means; the first rule that fits counts."""

    means: Literal["state", "totals", "part", "ask", "hint", "note"]
    when: dict[str, Wanted] = {}
    source: Literal["webhook", "callback", ""] = ""
    object: str = ""  #: where the thing is
    kind: str = ""  #: of which kind it is; without it, the channel's or the default one, as a guess
    guessed: bool = False  #: the kind is a guess, although it is named
    channel: Literal["", "none"] = ""  #: none: only where the URL that was used does not tell the kind
    id: Pointers = ""  #: where its id is, if not where its kind says
    reference: Pointers = ""
    names: list[str] = []  #: pointers to further ids of the payment, below `object`
    at: Pointers = ""  #: a signed time at which it was so
    currency: Pointers = ""  #: totals: of them, within `object`
    totals: dict[str, Pointers] = {}  #: totals: captured, refunded and so on, as in a kind
    part: PartSection | None = None  #: part: the capture, refund or dispute that `object` is
    refs: list[str] = []  #: hint: pointers to names of payments
    deep: str = ""  #: hint: pattern of names anywhere below `object`
    deep_keys: str = ""  #: hint: pattern of the keys that names stand under
    money: bool = False  #: hint: money came
    account: bool = False  #: hint: something changed somewhere in the account
    note: str = ""


class EventsSection(PageSection, frozen=True):
    """`[events]`: how a delivery is read."""

    format: Literal["json", "form", "xml"] = "json"
    field: str = ""  #: the form's field that holds the event of this format, in base64
    type: str = ""  #: pointer to the event's name, which must be there
    items: str = ""  #: pointer to several events in one body
    item: str = ""  #: pointer within each of them
    rule: list[RuleSection] = []


class StateRule(PageSection, frozen=True):
    """A state that the provider tells by other fields than its status."""

    when: dict[str, Wanted]
    state: str


class KindSection(PageSection, frozen=True):
    """`[kind.x]`: a resource, where its fields are, and its lifecycle."""

    id: Pointers
    status: Pointers
    states: dict[str, str]  #: the provider's word = our phase; an exclamation mark: nothing is expected afterwards
    initial: list[str]
    moves: dict[str, list[str]] = {}
    late: dict[str, list[str]] = {}  #: moves after the end: nobody waits for them; `?` at the end: a person sees it
    id_pattern: str = ""  #: of ids among hints, so that an unknown one is asked about
    source: str = ""
    subject: str = "payment"
    names: list[str] = []  #: pointers to further ids of the same payment
    attempts: bool = False  #: another id with a known reference is another attempt at the same wish
    belongs_to: str = ""  #: the kind whose further names its ids are; it is never a payment by itself
    answer: str = ""  #: where the thing is in an answer
    type: str = ""  #: pointer to the name of the kind in an answer, where it says that
    is_id_optional: bool = False  #: an answer without the id is about what was asked for
    is_status_required: bool = False  #: a delivery without a status cannot be read
    refusals: list[str] = []  #: what an error has and a thing has not: such an answer states nothing
    words: str = ""  #: what people call it
    amount: Pointers = ""
    currency: Pointers = ""
    reference: Pointers = ""
    alias: Pointers = ""
    expires: Pointers = ""
    reason: Pointers = ""
    at: Pointers = ""  #: the provider's time of the state, in answers and signed events
    totals: dict[str, Pointers] = {}  #: authorised, captured, refunded, charged_back, disputed: sums, never deltas
    part: list[PartSection] = []  #: captures, refunds and disputes that the thing lists
    capture_by: Pointers = ""  #: when an authorisation ends
    facts: dict[str, Pointers] = {}
    pages: dict[str, Pointers] = {}  #: facts that are URLs where people pay: HTTPS only
    images: dict[str, Pointers] = {}  #: facts that are URLs to look at
    rules: list[StateRule] = []


class SignedCalls(PageSection, frozen=True):
    """Our own signature of our requests."""

    secret: str
    signed: list[str]
    header: str
    time_header: str = ""
    time_format: Literal["unix", "iso"] = "unix"
    encoding: Literal["hex", "base64"] = "hex"


class OAuthSection(PageSection, frozen=True):
    """Client credentials of OAuth 2."""

    path: str
    id: str
    secret: str
    scope: str = ""


class CallSection(PageSection, frozen=True):
    """One call of the provider's API; without a path there is none."""

    path: str = ""
    method: str = ""
    kinds: dict[str, str] = {}  #: the path of each kind, where they differ
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: Literal["json", "form", "xml", ""] = ""
    fields: dict[str, Any] = {}  #: what a caller's further fields cannot change
    defaults: dict[str, Any] = {}  #: what they can
    ours: list[str] = []  #: further fields that are refused: the request or the account says them
    needs: dict[str, list[str]] = {}  #: further fields that must be there, by kind
    attempts: int = 1  #: how often it may be sent, where a repeat is harmless
    is_idempotent: bool = True
    remembered_hours: float | None = None  #: how long a repeat counts as the same call
    ref: str = ""  #: create: the provider's name of what is created, where it is one of ours
    part: PartSection | None = None  #: capture, refund: the answer is a part of the payment, else the payment itself


class ListSection(PageSection, frozen=True):
    """`[calls.list]`: the provider's list of what was created in a range."""

    path: str = ""
    kind: str = ""
    items: str = "/data"
    query: dict[str, str] = {}
    since: str = ""  #: the query's name for the beginning of the range
    until: str = ""
    is_after: bool = False  #: `since` itself is left out by the provider
    time: Literal["iso", "unix"] = "iso"
    more: list[str] | str = ""
    next: list[str] | str = ""  #: pointer to the cursor, or `last_id`, or `offset`: how many were listed before
    cursor: str = ""  #: the query's name for it
    absent_ends: bool = False  #: no cursor is the end, and an empty object an empty page
    limit: str = "limit"
    size: int = 100
    of: Literal["things", "events"] = "things"


class JournalSection(PageSection, frozen=True):
    """`[calls.journal]`: the provider's list of its own events."""

    path: str = ""
    items: str = "data"  #: the name of the list of events
    more: str = "has_more"  #: the name of the flag that says whether more follow
    position: Pointers = "/id"  #: of an event: after the last one the next page begins
    query: dict[str, str] = {}
    since: str = ""  #: the query's name for the instant from which events are wanted
    until: str = ""
    is_after: bool = False  #: `since` itself is left out by the provider
    time: Literal["iso", "unix"] = "iso"
    cursor: str = ""  #: the query's name for the position
    older: str = ""  #: where the newest come first: the query's name for the event after which older ones follow
    limit: str = "limit"
    size: int = 100


class CallsSection(PageSection, frozen=True):
    """`[calls]`: how the provider's API is called."""

    format: Literal["json", "xml"] = "json"  #: of answers
    bearer: str = ""
    basic: list[str] = []
    oauth: OAuthSection | None = None
    headers: dict[str, str] = {}
    sign: SignedCalls | None = None
    create: CallSection | None = None
    fetch: CallSection | None = None
    cancel: CallSection | None = None
    capture: CallSection | None = None
    refund: CallSection | None = None
    list: ListSection | None = None
    journal: JournalSection | None = None
    register: CallSection | None = None


class CodeSection(PageSection, frozen=True):
    """Meaning of one code of the provider, and the status that it comes with."""

    type: ErrorType
    status: int | None = None
    retry: bool = False  #: the same call may succeed later, whatever the status


class MessageSection(PageSection, frozen=True):
    """Meaning of one message of the provider."""

    message: str
    type: ErrorType
    param: str | None = None
    is_prefix: bool = False
    retry_on: list[int] = []


class WaitSection(PageSection, frozen=True):
    """A header that tells how long to wait."""

    header: str
    unit: Literal["auto", "unix", "delta"] = "auto"


class ErrorsSection(PageSection, frozen=True):
    """`[errors]`: the provider's error answers."""

    code: Pointers = ""
    message: Pointers = "/message"
    param: Pointers = ""
    type: Pointers = ""  #: where the provider says one of our own types
    codes: dict[str, CodeSection] = {}
    statuses: dict[str, ErrorType] = {}  #: of answers whose code says nothing
    token_statuses: dict[str, ErrorType] = {}  #: of the token's answer
    messages: list[MessageSection] = []
    retry: tuple[int, ...] = (429, 500, 502, 503, 504)
    wait: WaitSection | None = None


class Vector(PageSection, frozen=True):
    """A delivery signed by somebody else, with its key and time."""

    source: str
    key: str
    headers: dict[str, str]
    body: str = ""
    file: str = ""
    at: int | None = None
    options: dict[str, str] = {}  #: of the account, where what is signed depends on them


class Sample(PageSection, frozen=True):
    """An official body, and what a person read in it."""

    source: str
    file: str
    reads: dict[str, Any]
    by: Literal["webhook", "callback", "poll", "list", "create", "cancel", "capture", "refund"] = "poll"
    kind: str = ""


class ProviderPage(PageSection, frozen=True):
    """All of a provider's page."""

    provider: Identity
    money: MoneySection
    signature: SignatureSection
    kind: dict[str, KindSection]
    options: dict[str, OptionSection] = {}
    delivery: DeliverySection = DeliverySection()
    events: EventsSection = EventsSection()
    calls: CallsSection = CallsSection()
    errors: ErrorsSection = ErrorsSection()
    vector: list[Vector] = []
    sample: list[Sample] = []


class PageFile(msgspec.Struct, frozen=True):
    """A page as it was read: its text, where it came from, and its tree."""

    text: str
    name: str  #: of the file, for messages
    folder: Path
    tree: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the text, hex: what the audit rests on."""
        return sha256(self.text.encode()).hexdigest()

    def page(self, options: Mapping[str, object]) -> ProviderPage:
        """Return the page with the account's options filled in; raises InvalidPage.

        A required option that is missing leaves its placeholder, so that the page says what it could do.
        """
        told = self.tree.get("options", {})
        left = {name for name, value in options.items() if value is None and told.get(name, {}).get("is_required")}
        values = {f"options.{name}": value for name, value in options.items() if name not in left}
        try:
            return msgspec.convert(fill(_chosen(_like(self.tree), options), values), ProviderPage)
        except msgspec.ValidationError as fault:
            message, path = _place(str(fault))
            raise InvalidPage(self.located(_with_hint(message, self.tree, path), path), path) from None

    def located(self, message: str, path: Sequence[str | int]) -> str:
        """Return the message with the file and the line that it is about."""
        line = line_of(self.text, path)
        return f"{self.name}:{line}: {message}" + (f" (in {'.'.join(map(str, path))})" if path else "")


def read(path: Path) -> PageFile:
    """Read a page from its file; raises InvalidPage."""
    try:
        return parse(path.read_text("utf-8"), path.name, path.parent)
    except (OSError, UnicodeDecodeError) as fault:
        raise InvalidPage(f"{path.name}: {fault}") from None


def parse(text: str, name: str, folder: Path) -> PageFile:
    """Parse a page's text; its options are checked, the rest when they are known.

    Raises InvalidPage.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise InvalidPage(f"{name}: {fault}") from None
    return PageFile(text, name, folder, tree)


def option_sections(source: PageFile) -> dict[str, OptionSection]:
    """Return the page's options; raises InvalidPage for these, or for unknown ones."""
    try:
        found = msgspec.convert(source.tree.get("options", {}), dict[str, OptionSection])
    except msgspec.ValidationError as fault:
        message, path = _place(str(fault))
        path = ("options", *path)
        raise InvalidPage(source.located(_with_hint(message, source.tree, path), path), path) from None
    for name in sorted(placeholders(source.tree)):
        head, _, option = name.partition(".")
        if head == "options" and option not in found:
            path = path_to(source.tree, "{" + name + "}") or ()
            raise InvalidPage(source.located(f"no option is named {option!r}{_near(option, found)}", path), path)
    return found


def _like(tree: dict[str, Any]) -> dict[str, Any]:
    """Let a kind begin with the keys of the one that it is `like`."""
    kinds = tree.get("kind")
    if not isinstance(kinds, dict):
        return tree
    found = {}
    for name, section in kinds.items():
        base = section.get("like") if isinstance(section, dict) else None
        if base is not None:
            if not isinstance(kinds.get(base), dict):
                raise InvalidPage(f"{base!r} is no kind of this page{_near(str(base), kinds)}", ("kind", name, "like"))
            section = {**kinds[base], **{key: value for key, value in section.items() if key != "like"}}
        found[name] = section
    return {**tree, "kind": found}


def _chosen(tree: Any, options: Mapping[str, object]) -> Any:
    """Replace `{ by = "option", value = ... }` by what fits the option's value."""
    if isinstance(tree, dict):
        by = tree.get("by")
        if isinstance(by, str) and by in options:
            return _chosen(tree.get(str(options[by])), options)
        found = {name: _chosen(part, options) for name, part in tree.items()}
        return {name: part for name, part in found.items() if part is not None}
    return [_chosen(part, options) for part in tree] if isinstance(tree, list) else tree


# -- where a fault is

_AT: Final = re.compile(r"^(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>.*?)`)?$", re.DOTALL)
_STEP: Final = re.compile(r"\.([\w-]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`")


def _place(words: str) -> tuple[str, tuple[str | int, ...]]:
    found = _AT.match(words)
    if found is None:  # pragma: no cover - the pattern fits any text
        return words, ()
    steps = [key or (index if index == "..." else int(index)) for key, index in _STEP.findall(found["path"] or "")]
    unknown = _UNKNOWN.match(found["message"])
    if unknown:
        return f"unknown key {unknown['name']!r}", (*steps, unknown["name"])
    return found["message"], tuple(steps)


def _with_hint(message: str, tree: Mapping[str, Any], path: Sequence[str | int]) -> str:
    if not message.startswith("unknown key"):
        return message
    known = _keys_of(ProviderPage, path[:-1])
    return message + _near(str(path[-1]), known)


def _near(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else (f"; known: {', '.join(known)}" if known else "")


def _keys_of(kind: Any, path: Sequence[str | int]) -> list[str]:
    """Return the keys that a section has."""
    info = msgspec.inspect.type_info(kind)
    for step in path:
        info = _inner(info, step)
    return [field.encode_name for field in info.fields] if isinstance(info, msgspec.inspect.StructType) else []


def _inner(info: Any, step: str | int) -> Any:
    inspect = msgspec.inspect
    if isinstance(info, inspect.UnionType):
        info = next((t for t in info.types if isinstance(t, inspect.StructType)), info)
    if isinstance(info, inspect.StructType):
        return next((f.type for f in info.fields if f.encode_name == step), info)
    if isinstance(info, inspect.DictType):
        return info.value_type
    return info.item_type if isinstance(info, inspect.ListType) else info


def path_to(tree: Any, text: str) -> tuple[str | int, ...] | None:
    """Return the path of keys to the first value, or key, that holds the text."""
    pairs: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(tree, dict):
        pairs = iter(tree.items())
    elif isinstance(tree, list):
        pairs = iter(enumerate(tree))
    for name, part in pairs:
        if (isinstance(part, str) and text in part) or text in str(name):
            return (name,)
        found = path_to(part, text)
        if found is not None:
            return (name, *found)
    return None


def line_of(text: str, path: Sequence[str | int]) -> int:
    """Return the line of a page that a path of keys leads to; the nearest one above."""
    lines = text.splitlines()
    here, rest = 0, list(path)
    names = [str(step) for step in path if not isinstance(step, int) and step != "..."]
    # The longest table header that is a prefix of the path.
    for size in range(len(names), 0, -1):
        header = ".".join(names[:size])
        wanted = [i for i, line in enumerate(lines) if re.match(rf"\[\[?\s*{re.escape(header)}\s*\]\]?", line)]
        if wanted:
            index = next((s for s in path[size:] if isinstance(s, int)), 0) if lines[wanted[0]].startswith("[[") else 0
            here = wanted[min(index, len(wanted) - 1)]
            rest = list(names[size:])
            break
    for step in rest:
        found = next(
            (
                i
                for i in range(here, len(lines))
                if (i == here or not lines[i].startswith("["))
                and re.search(rf"(^|[\s{{,\[\"'.]){re.escape(str(step))}[\"']?\s*=", lines[i])
            ),
            None,
        )
        if found is None:
            break
        here = found
    return here + 1
