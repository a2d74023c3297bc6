"""Meaning of deliveries and answers, read as a page describes them."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Final, NamedTuple, TypedDict

import msgspec

from providers.contract import Delivery, Reading, Statement
from providers.decoding import (
    Unreadable,
    fact,
    form_fields,
    instant,
    json_object,
    json_value,
    name,
    name_asked,
    says_live,
    word,
    words_under,
)
from providers.engine.money import money_of, part_of, parts_of, totals_of
from providers.engine.page import DeliverySection, EventsSection, KeySection, KindSection, ProviderPage, RuleSection
from providers.engine.pointers import (
    Get,
    InvalidPage,
    Test,
    condition,
    first,
    first_member,
    own_member,
    pattern,
    pointer,
)
from providers.engine.xml_decoding import xml_value
from providers.http import page_url
from providers.listing import read_each, things_at
from statemachine.errors import InvalidAmount, InvalidLifecycle
from statemachine.lifecycle import LateMove, LatePolicy, Lifecycle, State
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Phase, Source
from statemachine.sums import UNSAID, Part, Sums

Read = Callable[..., Observation]  #: of a thing, its statement, when it was so, and the event that it is in

#: More names than one event has; of a page of events as many are taken as it can name.
_MAX_HINTS: Final = 20
_MAX_LIST_HINTS: Final = 2000

#: More events than one body has.
_MAX_ITEMS: Final = 2000

_MAX_KEY_BYTES: Final = 200


def lifecycles(page: ProviderPage) -> dict[str, Lifecycle]:
    """Build the lifecycle of each kind; raises InvalidPage."""
    return {kind: _lifecycle(page, kind, section) for kind, section in page.kind.items()}


def _lifecycle(page: ProviderPage, kind: str, section: KindSection) -> Lifecycle:
    if section.belongs_to and (section.belongs_to == kind or section.belongs_to not in page.kind):
        raise InvalidPage(f"{section.belongs_to!r} is no other kind of this page", ("kind", kind, "belongs_to"))
    states = []
    for word_, meaning in section.states.items():
        phase = meaning.removesuffix("!")
        if phase not in set(Phase):
            raise InvalidPage(f"{phase!r} is no phase", ("kind", kind, "states", word_))
        states.append(State(word_, Phase(phase), terminal=meaning.endswith("!")))
    try:
        return Lifecycle(
            name=f"{page.provider.name}.{kind}",
            source=section.source or page.provider.source,
            initial=tuple(section.initial),
            states=tuple(states),
            moves={state: tuple(targets) for state, targets in section.moves.items()},
            late_moves={
                state: tuple(_late_move(target) for target in targets) for state, targets in section.late.items()
            },
            subject=section.subject,
            has_names=_has_names(page, kind),
            has_attempts=section.attempts,
            belongs_to=section.belongs_to,
        )
    except InvalidLifecycle as fault:
        raise InvalidPage(fault.message, ("kind", kind)) from None


def _late_move(target: str) -> LateMove:
    """Return a move after the end; a question mark says that a person must see it."""
    policy = LatePolicy.REVIEW if target.endswith("?") else LatePolicy.ACCEPT
    return LateMove(target.removesuffix("?"), policy)


def _has_names(page: ProviderPage, kind: str) -> bool:
    """Return whether payments of the kind may have further names."""
    if page.kind[kind].names or page.kind[kind].attempts:
        return True
    return any(section.belongs_to == kind for section in page.kind.values()) or any(
        rule.names for rule in page.events.rule
    )


class _Rule(NamedTuple):
    source: str
    is_without_kind: bool
    fits: Test
    means: Callable[[object, object, Statement], Reading]

    def is_for(self, statement: Statement) -> bool:
        """Return whether the rule is about deliveries by this channel."""
        is_source = not self.source or statement.source == self.source
        return is_source and not (self.is_without_kind and statement.kind is not None)


class PageReader:
    """Reads deliveries and answers of one account; total on any bytes."""

    def __init__(self, page: ProviderPage, *, allow_loopback: bool = False) -> None:
        self._page = page
        self._reads = {kind: _reader(page, kind, allow_loopback) for kind in page.kind}
        self._answers = {kind: first(section.answer) for kind, section in page.kind.items()}
        self._ids = {kind: first(section.id) for kind, section in page.kind.items()}
        self._types = {kind: pointer(section.type) for kind, section in page.kind.items() if section.type}
        events = page.events
        self._type = pointer(events.type) if events.type else None
        self._items = pointer(events.items) if events.items else None
        self._item = pointer(events.item)
        self._event_of = event_decoder(events)
        self._answer_of = json_object if page.calls.format == "json" else xml_value
        self._rules = [self._rule(rule, at) for at, rule in enumerate(events.rule)]
        calls = {Source.CAPTURE: page.calls.capture, Source.REFUND: page.calls.refund}
        self._parts = {
            source: part_of(call.part, page.money)
            for source, call in calls.items()
            if call is not None and call.part is not None
        }
        listed = page.calls.list
        self._list = None if listed is None else pointer(listed.items)
        self._has_empty_object = listed is not None and listed.absent_ends
        self._list_is_events = listed is not None and listed.of == "events"
        self._list_kind = (listed and listed.kind) or page.provider.default_kind

    def read(self, statement: Statement) -> Reading:
        """Read a statement; never raises."""
        status = statement.http_status
        if status is not None and not 200 <= status < 300:
            return Reading(note=f"an answer with status {status} says nothing about a state")
        try:
            if statement.source is Source.LIST:
                return self._page_of(json_value(statement.body), statement)
            if statement.source in ANSWERS:
                return self._answer(self._answer_of(statement.body), statement)
            return self._delivery(self._event_of(statement.body), statement)
        except (Unreadable, InvalidAmount) as fault:
            return Reading(unreadable=str(fault))

    def rule_of(self, statement: Statement) -> int | None:
        """Return which event rule reads a delivery, None where none does."""
        if statement.source in ANSWERS:
            return None
        try:
            event = self._event_of(statement.body)
        except Unreadable:
            return None
        if self._items is not None:
            items = self._items(event)
            event = self._item(items[0]) if isinstance(items, list) and items else None
        rules = enumerate(self._rules)
        return next((place for place, rule in rules if rule.is_for(statement) and rule.fits(event)), None)

    def _answer(self, body: object, statement: Statement) -> Reading:
        kind = statement.kind or self._page.provider.default_kind
        if statement.source in self._parts:
            return self._part_answer(body, kind, statement)
        read = self._reads.get(kind)
        if read is None:
            raise Unreadable(f"an answer about a {kind}, which is no kind of this provider")
        if kind in self._types and (told := self._types[kind](body)) is not None and told != kind:
            raise Unreadable("the answer is about another kind than was asked about")
        seen = read(self._answers[kind](body), statement, statement.received_at, body)
        if statement.ref is not None and statement.source is not Source.CREATE and seen.provider_ref != statement.ref:
            raise Unreadable(f"the answer is about another {self._words(kind)} than the one asked about")
        return Reading(observations=(seen,))

    def _part_answer(self, body: object, kind: str, statement: Statement) -> Reading:
        """Read the capture or refund that a call of ours has made."""
        part, currency = self._parts[statement.source](body)
        seen = Observation(
            source=statement.source,
            kind=kind,
            provider_ref=statement.ref,
            currency=currency,
            parts=(part,),
            is_live=says_live(body) if isinstance(body, dict) else None,
            as_of=statement.received_at,
        )
        return Reading(observations=(seen,))

    def _words(self, kind: str) -> str:
        return self._page.kind[kind].words or kind.replace("_", " ")

    def _page_of(self, body: object, statement: Statement) -> Reading:
        if self._list is None:
            return Reading(note="a list, which this provider does not have")
        things = [] if self._has_empty_object and body == {} else things_at(self._list(body))
        kind = self._list_kind
        if self._list_is_events:
            return self._listed_events(things, statement)
        if not things:
            return Reading(note=f"a page of the list without a {self._words(kind)}")
        read = self._reads[kind]

        def one(thing: Mapping[str, object]) -> Observation:
            return read(thing, statement, statement.received_at)

        return Reading(observations=tuple(read_each(things, statement, kind, one, self._ids[kind])))

    def _listed_events(self, events: list[object], statement: Statement) -> Reading:
        if not events:
            return Reading(note="a page of the log without events")
        readings = [self._event(event, event, statement) for event in events]
        names = dict.fromkeys(hint for reading in readings for hint in reading.hints)
        if len(names) > _MAX_LIST_HINTS:
            raise Unreadable(f"the page names more than {_MAX_LIST_HINTS} things")
        return Reading(hints=tuple(names), hints_account=True)

    def _delivery(self, body: object, statement: Statement) -> Reading:
        if self._items is None:
            return self._event(body, body, statement)
        items = self._items(body)
        if not isinstance(items, list) or len(items) > _MAX_ITEMS:
            raise Unreadable("the body has no list of events, or too long a one")
        readings = []
        for item in items:
            try:
                readings.append(self._event(self._item(item), body, statement))
            except (Unreadable, InvalidAmount) as fault:
                unread = Observation(statement.source, note=f"unreadable in the list: {fault}")
                readings.append(Reading(observations=(unread,)))
        return _together(readings)

    def _event(self, event: object, body: object, statement: Statement) -> Reading:
        if self._type is not None and (type(event) is not dict or word(self._type(event)) is None):
            raise Unreadable("the event has no type")
        for rule in self._rules:
            if rule.is_for(statement) and rule.fits(event):
                return rule.means(event, body, statement)
        if self._type is None:
            return Reading(note="events of this form are not used")
        return Reading(note=f"events of type {word(self._type(event))} are not used")

    def _rule(self, rule: RuleSection, at: int) -> _Rule:
        try:
            fits = condition(rule.when) if rule.when else _always
            means = {
                "state": self._means_state,
                "ask": self._means_ask,
                "totals": self._means_totals,
                "part": self._means_part,
                "hint": self._means_hint,
                "note": self._means_note,
            }[rule.means](rule)
        except InvalidPage as fault:
            path = () if fault.about else ("events", "rule", at, *fault.path)
            raise InvalidPage(fault.message, path, about=fault.about) from None
        return _Rule(rule.source, rule.channel == "none", fits, means)

    def _means_state(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        thing_of, at_of = pointer(rule.object), _optional(rule.at)
        id_of = first(rule.id) if rule.id else None
        further = _names(rule.names)
        if rule.kind and rule.kind not in self._reads:
            raise InvalidPage(f"{rule.kind!r} is no kind of this page", ("kind",))

        def means(event: object, body: object, statement: Statement) -> Reading:
            thing = thing_of(event)
            if type(thing) is not dict:
                raise Unreadable(f"the event has no {rule.object.rpartition('/')[2] or 'body'} object")
            at = None if at_of is None else _moment(at_of(event))
            kind = rule.kind or statement.kind or self._page.provider.default_kind
            read = self._reads.get(kind)
            if read is None:
                raise Unreadable(f"a delivery about a {kind}, which is no kind of this provider")
            seen = read(thing, statement, at, event)
            if id_of is not None:
                seen = msgspec.structs.replace(seen, provider_ref=name(id_of(event)))
            if further is not None:
                seen = msgspec.structs.replace(seen, names=tuple(dict.fromkeys((*seen.names, *further(thing)))))
            if rule.guessed or not rule.kind:
                seen = msgspec.structs.replace(seen, is_kind_guessed=True)
            return Reading(observations=(seen,))

        return means

    def _means_ask(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        id_of, thing_of = first(rule.id or "/id"), pointer(rule.object)
        reference_of = first(rule.reference) if rule.reference else None
        further = _names(rule.names)

        def means(event: object, body: object, statement: Statement) -> Reading:
            thing = thing_of(event)
            ref = name(id_of(thing))
            if ref is None:
                raise Unreadable("the event names nothing to ask about")
            seen = Observation(
                source=statement.source,
                kind=rule.kind or statement.kind or self._page.provider.default_kind,
                is_kind_guessed=rule.guessed or not rule.kind,
                provider_ref=ref,
                reference=None if reference_of is None else name(reference_of(thing)),
                names=() if further is None else further(thing),
                is_live=says_live(event) if isinstance(event, dict) else None,
            )
            return Reading(observations=(seen,))

        return means

    def _means_totals(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        thing_of = pointer(rule.object)
        sums_of = totals_of(rule.totals, rule.currency, self._page.money, "event")
        seen = self._money_seen(rule)

        def means(event: object, body: object, statement: Statement) -> Reading:
            thing = thing_of(event)
            _, currency, sums = sums_of(thing)
            return seen(event, thing, statement, currency, sums, ())

        return means

    def _means_part(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        if rule.part is None:
            raise InvalidPage("a rule of a part needs to say what part", ("part",))
        thing_of, part_in = pointer(rule.object), part_of(rule.part, self._page.money)
        seen = self._money_seen(rule)

        def means(event: object, body: object, statement: Statement) -> Reading:
            thing = thing_of(event)
            part, currency = part_in(thing)
            return seen(event, thing, statement, currency, UNSAID, (part,))

        return means

    def _money_seen(self, rule: RuleSection) -> Callable[..., Reading]:
        """Return the maker of observations that state money of a payment, and no state."""
        if rule.kind and rule.kind not in self._reads:
            raise InvalidPage(f"{rule.kind!r} is no kind of this page", ("kind",))
        id_of, at_of = first(rule.id or "/id"), _optional(rule.at)

        def seen(
            event: object,
            thing: object,
            statement: Statement,
            currency: str | None,
            sums: Sums,
            parts: tuple[Part, ...],
        ) -> Reading:
            ref = name(id_of(thing))
            if ref is None:
                raise Unreadable("the event names no payment of which it tells money")
            objects = [each for each in (event, thing) if isinstance(each, dict)]
            one = Observation(
                source=statement.source,
                kind=rule.kind or statement.kind or self._page.provider.default_kind,
                is_kind_guessed=rule.guessed or not rule.kind,
                provider_ref=ref,
                currency=currency,
                sums=sums,
                parts=parts,
                is_live=says_live(*objects),
                as_of=None if at_of is None else _moment(at_of(event)),
            )
            return Reading(observations=(one,))

        return seen

    def _means_hint(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        thing_of, gets = pointer(rule.object), [pointer(text) for text in rule.refs]
        deep = pattern(rule.deep).fullmatch if rule.deep else None
        keys = pattern(rule.deep_keys).fullmatch if rule.deep_keys else None
        limit = _MAX_LIST_HINTS if self._list_of_events() else _MAX_HINTS

        def is_wanted(key: str, text: str) -> bool:
            return (deep is None or deep(text) is not None) and (keys is None or keys(key) is not None)

        def means(event: object, body: object, statement: Statement) -> Reading:
            thing = thing_of(event)
            found = [text for get in gets if (text := name(get(thing))) is not None]
            if deep is not None or keys is not None:
                found += words_under(thing, is_wanted, limit if statement.source is Source.LIST else _MAX_HINTS)
            names = tuple(dict.fromkeys(found))
            if not names and not rule.account:
                return Reading(note=rule.note or "an event that names no payment")
            return Reading(hints=names, hints_money=rule.money, hints_account=rule.account)

        return means

    def _list_of_events(self) -> bool:
        listed = self._page.calls.list
        return listed is not None and listed.of == "events"

    def _means_note(self, rule: RuleSection) -> Callable[[object, object, Statement], Reading]:
        reading = Reading(note=rule.note or "an event that we do not use")
        return lambda event, body, statement: reading


def _together(readings: Sequence[Reading]) -> Reading:
    """Return one reading of several events: what they state, else what they hint."""
    seen = tuple(each for reading in readings for each in reading.observations)
    if seen:
        hinted = dict.fromkeys(hint for reading in readings for hint in reading.hints)
        asked = (Observation(seen[0].source, provider_ref=hint, is_kind_guessed=True) for hint in hinted)
        return Reading(observations=(*seen, *asked))
    names = tuple(dict.fromkeys(hint for reading in readings for hint in reading.hints))
    is_account = any(reading.hints_account for reading in readings)
    if names or is_account:
        has_money = any(reading.hints_money for reading in readings)
        return Reading(hints=names, hints_money=has_money, hints_account=is_account)
    return Reading(note=next((reading.note for reading in readings if reading.note), "a body without events"))


def _always(_event: object) -> bool:
    return True


def event_decoder(events: EventsSection) -> Callable[[bytes], object]:
    """Compile how the event of a delivery is decoded; it raises Unreadable."""
    decode: Callable[[bytes], object] = {"json": json_value, "form": form_fields, "xml": xml_value}[events.format]
    if not events.field:
        return decode
    field = events.field

    def read(body: bytes) -> object:
        told = form_fields(body).get(field)
        if not isinstance(told, str):
            raise Unreadable("the form has no field with the event")
        try:
            return decode(base64.b64decode(told.replace("\n", "").encode("ascii"), validate=True))
        except (UnicodeEncodeError, binascii.Error):
            raise Unreadable("the event in the form is no base64") from None

    return read


def _moment(value: object) -> datetime | None:
    """Read an instant from ISO 8601 text or from Unix seconds, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC) if 0 <= value < 253_402_300_800 else None
    return instant(value)


# -- a thing of one kind


def _reader(page: ProviderPage, kind: str, allow_loopback: bool) -> Read:
    """Compile `[kind.x]`: the function that reads one thing of this kind."""
    section = page.kind[kind]
    words = section.words or kind.replace("_", " ")
    ref_of, status_of, facts_of = _ref(section, words), _status(section, words, kind), _facts(section, allow_loopback)
    money, parts = money_of(section, page.money, words), parts_of(section.part, page.money)
    reference_of, alias_of, reason_of = (_optional(at) for at in (section.reference, section.alias, section.reason))
    expires_of, at_of, capture_by_of = (_optional(at) for at in (section.expires, section.at, section.capture_by))
    is_reference_id = section.reference == section.id
    further = _names(section.names)

    def read(thing: object, statement: Statement, as_of: datetime | None, event: object = None) -> Observation:
        if type(thing) is not dict:
            raise Unreadable(f"the {words} is no JSON object")
        ref = ref_of(thing, statement)
        status = status_of(thing, statement)
        amount, currency, sums = money(thing)
        at = None if at_of is None else _moment(at_of(thing))
        return Observation(
            source=statement.source,
            kind=kind,
            provider_ref=ref,
            reference=ref if is_reference_id else None if reference_of is None else name(reference_of(thing)),
            names=() if further is None else further(thing),
            alias=None if alias_of is None else name(alias_of(thing)),
            status=status,
            amount_minor=amount,
            currency=currency,
            sums=sums,
            parts=() if parts is None else parts(thing),
            is_live=says_live(event, thing) if type(event) is dict and event is not thing else says_live(thing),
            as_of=at or as_of,
            failure_reason=None if reason_of is None else fact(reason_of(thing)),
            expires_at=None if expires_of is None else _moment(expires_of(thing)),
            capture_by=None if capture_by_of is None else _moment(capture_by_of(thing)),
            facts=facts_of(thing),
        )

    return read


def _names(pointers: Sequence[str]) -> Callable[[object], tuple[str, ...]] | None:
    """Compile pointers to further ids; None where there are none."""
    gets = [pointer(text) for text in pointers]
    if not gets:
        return None
    return lambda thing: tuple(dict.fromkeys(found for get in gets if (found := name(get(thing))) is not None))


def _ref(section: KindSection, words: str) -> Callable[[object, Statement], str]:
    id_of, is_optional = first(section.id), section.is_id_optional

    def read(thing: object, statement: Statement) -> str:
        named = id_of(thing)
        ref = name_asked(named, statement.ref)
        if ref is None and named is not None:
            raise Unreadable(f"the {words}'s id is no name of a payment")
        if ref is None and is_optional and statement.source is not Source.CREATE:
            ref = statement.ref
        if ref is None:
            raise Unreadable(f"the {words} has no id")
        return ref

    return read


def _status(section: KindSection, words: str, kind: str) -> Callable[[object, Statement], str | None]:
    status_of = first(section.status)
    rules = [(condition(rule.when), rule.state) for rule in section.rules]
    unknown = sorted({rule.state for rule in section.rules} - section.states.keys())
    if unknown:
        raise InvalidPage(f"{unknown[0]!r} is no state of this kind", ("kind", kind, "rules"))
    is_required, refusals = section.is_status_required, [pointer(text) for text in section.refusals]

    def read(thing: object, statement: Statement) -> str | None:
        told = status_of(thing)
        status = word(told)
        if status is None and told is not None:
            raise Unreadable(f"the {words}'s status is no word")
        for fits, state in rules:
            if fits(thing):
                return state
        if status is None and is_required and statement.source not in ANSWERS:
            raise Unreadable(f"the {words} has no status")
        if status is None and any(get(thing) is not None for get in refusals):
            raise Unreadable("an error, whatever the HTTP status says")
        return status

    return read


def _facts(section: KindSection, allow_loopback: bool) -> Callable[[Mapping[str, object]], dict[str, str | None]]:
    flat = [(title, name) for title, where in section.facts.items() if (name := own_member(where)) is not None]
    deep = [(title, first(where)) for title, where in section.facts.items() if own_member(where) is None]
    urls = [(title, first(where), allow_loopback) for title, where in section.pages.items()]
    urls += [(title, first(where), True) for title, where in section.images.items()]  # nobody pays at an image

    def read(thing: Mapping[str, object]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for title, name in flat:
            if name in thing and (text := fact(thing[name])) is not None:
                found[title] = text
        for title, get in deep:
            told = get(thing)
            if told is not None and (text := fact(told)) is not None:
                found[title] = text
        for title, get, is_loopback in urls:
            told = get(thing)
            if told is not None and (url := page_url(told, allow_loopback=is_loopback)) is not None:
                found[title] = url
        return found

    return read


def _optional(where: str | list[str]) -> Get | None:
    return first(where) if where else None


# -- the identity of a delivery


def delivery_keys(section: DeliverySection, events: EventsSection) -> Callable[[Delivery], str | None]:
    """Compile `[delivery]`; the key is total and has at most 200 characters, or None."""
    ways = [_key(way) for way in section.key]
    value_of = _decoder(section) if events.format == "json" and not events.field else event_decoder(events)
    header = section.header.lower()

    def key(delivery: Delivery) -> str | None:
        if header and (told := word(delivery.header(header))) is not None:
            return told
        if ways:
            try:
                value = value_of(delivery.body)
            except Unreadable:
                return None
            for way in ways:
                found = way(value)
                if found is not None:
                    return found
        return None

    return key


def _decoder(section: DeliverySection) -> Callable[[bytes], object]:
    """Compile a decoder of the members that keys are made of, if they are members."""
    pointers = [text for way in section.key for text in (*way.needs, *way.any_of)]
    pointers += [text for way in section.key for text in way.parts if text.startswith("/")]
    if not all(pointers):
        return json_value
    # other members are passed over, and none of these is required
    members = TypedDict("members", {first_member(text): object for text in pointers}, total=False)  # type: ignore[misc]
    decode = msgspec.json.Decoder(members, float_hook=Decimal).decode

    def read(body: bytes) -> object:
        try:
            return decode(body)
        except (ValueError, ArithmeticError, RecursionError):
            return json_value(body)  # such as a list

    return read


def _key(section: KeySection) -> Callable[[object], str | None]:
    gets = [_key_part(part) for part in section.parts]
    fits = condition(section.needs) if section.needs else _always
    some = [pointer(text) for text in section.any_of]
    matches = pattern(section.pattern).fullmatch if section.pattern else None
    is_single = len(gets) == 1

    def key(value: object) -> str | None:
        if not fits(value) or (some and all(get(value) is None for get in some)):
            return None
        parts = [get(value) for get in gets]
        if is_single:
            text = word(parts[0])
            return text if text is not None and (matches is None or matches(text)) else None
        # JSON keeps the parts apart whatever they contain
        encoded = msgspec.json.encode(parts)
        told = encoded.decode()
        if len(encoded) <= _MAX_KEY_BYTES and told.isprintable():
            return told
        return f"key-sha256:{sha256(encoded).hexdigest()}"

    return key


def _key_part(text: str) -> Get:
    if text.startswith("/"):
        return pointer(text)
    return lambda value: text
