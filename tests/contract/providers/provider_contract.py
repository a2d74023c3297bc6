"""What every provider must do, as checks that any provider can be put through.

How to use it, in `tests/contract/providers/test_<provider>.py`:

    from tests.contract.providers.provider_contract import CHECKS, Answered, Case, vectors

    def sign(secret: bytes, body: bytes, at: datetime) -> dict[str, str]:
        # As the provider signs, written with the standard library's hmac: never with providers.signing,
        # which would share its mistakes. Header names as the provider's documentation spells them.

    CASE = Case(provider=..., sign=sign, body=..., other_body=..., answers=(...), bodies=vectors("<provider>"))

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        '''The provider keeps the promise that the check's first line states.'''
        check(CASE)

A provider with a list adds `page=...`, which puts things into its envelope as it documents.

Each check takes a Case and raises AssertionError; `test_contract_bites.py` proves of each that it can fail. Parts of a
scheme that do not exist are said in the Case (`signs_body`, `signs_time`), and the checks that need them pass.
`verify` may wrap Provider.verify where a scheme needs more than a delivery, such as one of two channels.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

import providers
from providers.contract import Delivery, Provider, Reading, Statement, Verified
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window
from statemachine.lifecycle import Lifecycle
from statemachine.observation import Observation
from statemachine.phases import Source

NOW = datetime(2026, 4, 1, 10, 0, 0, tzinfo=UTC)
SECRET = b"the-present-secret-of-this-account"
OLD_SECRET = b"the-secret-before-it-of-this-account"
FOREIGN_SECRET = b"a-secret-that-this-account-never-had"
WINDOW = Window()

Sign = Callable[[bytes, bytes, datetime], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A documented answer to our own call, and the state that it must be read as."""

    kind: str
    ref: str
    status: str
    body: bytes
    source: Source = Source.POLL


@dataclass(frozen=True, kw_only=True)
class Case:
    """One provider under contract, with an outside signer and documented bodies."""

    provider: Provider
    sign: Sign  #: (secret, body, instant) -> the headers that authenticate it, and no others
    body: bytes  #: a documented delivery
    other_body: bytes  #: a delivery of something else
    redelivered: bytes | None = None  #: `body` as it comes a second time, where its bytes may differ
    answers: tuple[Answered, ...] = ()
    bodies: tuple[bytes, ...] = ()  #: every documented body, for parse
    page: Callable[[Sequence[bytes]], bytes] | None = (
        None  #: a page of the list that holds these things, where it has one
    )
    damaged: tuple[tuple[bytes, str | None], ...] = ()  #: more things that cannot be read, with the id that they show
    has_empty_object: bool = False  #: an empty page may be an empty object
    lists_events: bool = False  #: the things on a page are events like `body`, and not payments like `answers`
    has_delivery_id: bool = True  #: False where nothing in a delivery tells a repeat from news
    signs_body: bool = True  #: False where the scheme is a static token
    signs_time: bool = True  #: False where the scheme has no timestamp
    secret: bytes = SECRET
    old_secret: bytes = OLD_SECRET
    foreign_secret: bytes = FOREIGN_SECRET
    window: Window = field(default=WINDOW)

    def delivery(self, *, secret: bytes | None = None, body: bytes | None = None, at: datetime = NOW) -> Delivery:
        """A delivery signed by the outside signer; header names arrive in lower case, as from ASGI."""
        body = self.body if body is None else body
        headers = self.sign(self.secret if secret is None else secret, body, at)
        noise = (("host", "shop.example"), ("content-type", "application/json"))
        return Delivery(body, (*noise, *((name.lower(), value) for name, value in headers.items())))

    def names(self) -> list[str]:
        """The lower-case names of the headers that authenticate a delivery."""
        return [name.lower() for name in self.sign(self.secret, self.body, NOW)]

    def ring(self, *keys: Key) -> KeyRing:
        """The given keys, or the present one alone."""
        return KeyRing(keys or (Key("present", self.secret),))


def vectors(provider: str) -> tuple[bytes, ...]:
    """The exact bytes of every documented body, by name: of the page's samples, or of vectors/<provider>/."""
    folder = Path(providers.__file__).parent / provider / "samples"
    folder = folder if folder.is_dir() else Path(__file__).parent / "vectors" / provider
    found = tuple(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    assert found, f"no vectors in {folder.name}"
    return found


def accepted(case: Case, delivery: Delivery, keys: KeyRing | None = None, now: datetime = NOW) -> Verified:
    """What verify says; AssertionError where it rejects or leaks."""
    try:
        return case.provider.verify(delivery, keys or case.ring(), case.window, now)
    except DeliveryRejected as rejection:
        raise AssertionError(f"an authentic delivery was rejected: {rejection.reason}") from rejection
    except Exception as fault:
        raise AssertionError(f"verify leaked {type(fault).__name__}") from fault


def rejected(case: Case, delivery: Delivery, keys: KeyRing | None = None, now: datetime = NOW) -> str:
    """The reason for which verify rejects; AssertionError where it accepts or leaks."""
    try:
        verified = case.provider.verify(delivery, keys or case.ring(), case.window, now)
    except DeliveryRejected as rejection:
        return rejection.reason
    except Exception as fault:
        raise AssertionError(f"verify leaked {type(fault).__name__}") from fault
    raise AssertionError(f"a delivery that is not authentic was accepted by key {verified.key_id}")


# verify


def check_authentic_is_accepted(case: Case) -> None:
    """An authentic delivery is accepted, and the id of the key that matched is recorded."""
    verified = accepted(case, case.delivery())
    assert verified.key_id == "present", f"recorded key {verified.key_id!r}"
    if case.signs_time:
        assert verified.provider_time == NOW, f"provider's time read as {verified.provider_time}"
    else:
        assert verified.provider_time is None, "the scheme has no time to report"


def check_empty_and_odd_bodies_are_accepted(case: Case) -> None:
    """Authenticity is about bytes: any body whatever is accepted when its signature is right."""
    for body in (b"", b"\x00\xff", b"{", b'{"a": 1}\n', "Grüße".encode(), b"[" * 5000):
        accepted(case, case.delivery(body=body))


def check_tampered_body_is_rejected(case: Case) -> None:
    """A change of a single byte, white space included, is rejected."""
    if not case.signs_body:
        return
    headers = case.delivery().headers
    changed = bytes([case.body[0] ^ 1]) + case.body[1:]
    for body in (changed, case.body + b"\n", b" " + case.body, case.body[:-1], b"", case.other_body):
        rejected(case, Delivery(body, headers))


def check_wrong_secret_is_rejected(case: Case) -> None:
    """A signature by a secret that the account does not have is rejected as wrong."""
    assert rejected(case, case.delivery(secret=case.foreign_secret)) == "signature_wrong"
    for near in (case.secret + b"x", case.secret[:-1], case.secret.swapcase()):
        rejected(case, case.delivery(secret=near))


def check_no_active_key_rejects(case: Case) -> None:
    """Without an active key nothing is accepted."""
    minute = timedelta(minutes=1)
    ended, future = Key("ended", case.secret, not_after=NOW), Key("future", case.secret, not_before=NOW + minute)
    assert rejected(case, case.delivery(), KeyRing(())) == "no_active_key"
    assert rejected(case, case.delivery(), case.ring(ended, future)) == "no_active_key"


def check_rotation_records_the_key_that_matched(case: Case) -> None:
    """While a key is rotated, old and new are both accepted, each under its own id, each until its end."""
    hour = timedelta(hours=1)
    old = Key("old", case.old_secret, not_after=NOW + hour)
    new = Key("new", case.secret, not_before=NOW - hour)
    for ring in (case.ring(old, new), case.ring(new, old)):
        assert accepted(case, case.delivery(), ring).key_id == "new"
        assert accepted(case, case.delivery(secret=case.old_secret), ring).key_id == "old"
        rejected(case, case.delivery(secret=case.foreign_secret), ring)
        later = NOW + hour
        assert accepted(case, case.delivery(at=later), ring, later).key_id == "new"
        rejected(case, case.delivery(secret=case.old_secret, at=later), ring, later)
        earlier = NOW - hour - timedelta(seconds=1)
        rejected(case, case.delivery(at=earlier), ring, earlier)


def check_comparison_is_constant_time(case: Case) -> None:
    """A wrong signature is compared with every active key, in constant time."""
    keys = case.ring(Key("old", case.old_secret), Key("new", case.secret))
    with mock.patch("hmac.compare_digest", return_value=False) as compare:
        rejected(case, case.delivery(secret=case.foreign_secret), keys)
    assert compare.call_count >= 2, f"compared {compare.call_count} times with 2 active keys"
    assert all(isinstance(part, bytes) for call in compare.call_args_list for part in call.args), "compared as text"


def check_time_is_held_to_the_window(case: Case) -> None:
    """A timestamp is accepted up to the bounds of the window, rejected beyond them in both directions, and signed."""
    if not case.signs_time:
        return
    second = timedelta(seconds=1)
    for offset in (-case.window.past, case.window.future):
        accepted(case, case.delivery(at=NOW + offset))
    assert rejected(case, case.delivery(at=NOW - case.window.past - second)) == "timestamp_stale"
    assert rejected(case, case.delivery(at=NOW + case.window.future + second)) == "timestamp_future"
    fresh, late = case.delivery().headers, case.delivery(at=NOW + second).headers
    for name in case.names():  # one header of a later signing among the others of an earlier one
        if dict(fresh)[name] != dict(late)[name]:
            mixed = tuple((key, dict(late)[key] if key == name else value) for key, value in fresh)
            if mixed != late:
                rejected(case, Delivery(case.body, mixed))


def check_missing_header_is_rejected(case: Case) -> None:
    """Each header that authenticates is necessary."""
    for missing in case.names():
        headers = tuple((name, value) for name, value in case.delivery().headers if name != missing)
        reason = rejected(case, Delivery(case.body, headers))
        assert reason.endswith("_missing"), f"without {missing}: {reason}"
    rejected(case, Delivery(case.body, ()))


def check_contradicting_headers_are_rejected(case: Case) -> None:
    """A header that is given twice with different values is rejected, whichever comes first."""
    headers = case.delivery().headers
    for name in case.names():
        for other in ("", "0", dict(headers)[name] + "0", dict(headers)[name][:-1]):
            rejected(case, Delivery(case.body, ((name, other), *headers)))
            rejected(case, Delivery(case.body, (*headers, (name, other))))


def check_garbage_is_rejected(case: Case) -> None:
    """Malformed values in the authenticating headers are rejected, and nothing but rejected."""
    right = dict(case.delivery().headers)
    for name in case.names():
        value = right[name]
        broken = (
            *("", " ", "=", ".", ",", "\x00", "é" * 64, "\udcff", "0" * 64, "-1", "1e9", "9" * 400, "x" * 100_000),
            *(value[:-1], value + "0", value[::-1], value[1:], f"{value},{value}", value.replace("=", "")[:-1]),
            *("١٢٣٤٥٦٧٨٩٠", "sha256=", "Bearer ", "Bearer", "2026-99-99T00:00:00Z", "0001-01-01T00:00:00+14:00"),
        )
        for text in broken:
            if text != value:
                headers = tuple({**right, name: text}.items())
                rejected(case, Delivery(case.body, headers))


def check_upper_case_hex_is_the_same_signature(case: Case) -> None:
    """A signature in upper-case hexadecimal digits is the same signature."""
    for name, value in case.delivery().headers:
        head, found, digits = value.rpartition("=" if "=" in value else ".")
        if len(digits) == 64 and set(digits) <= set("0123456789abcdef"):
            headers = {**dict(case.delivery().headers), name: head + found + digits.upper()}
            accepted(case, Delivery(case.body, tuple(headers.items())))


# delivery_key


def check_delivery_key_names_what_was_delivered(case: Case) -> None:
    """A redelivery, signed anew at another time, has the same key; another delivery has another.

    Where deliveries have no id of their own, none is made up: their bytes alone do not tell a repeat from news.
    """
    key = case.provider.delivery_key(case.delivery())
    assert (key is not None) == case.has_delivery_id, f"the key is {key}"
    if key is None:
        return
    again = case.delivery(at=NOW + timedelta(minutes=3), body=case.redelivered or case.body)
    assert case.provider.delivery_key(again) == key, "a redelivery has another key"
    assert case.provider.delivery_key(case.delivery(secret=case.old_secret)) == key, "the key depends on the secret"
    assert case.provider.delivery_key(case.delivery(body=case.other_body)) != key, "two deliveries have one key"


def check_delivery_key_is_total(case: Case) -> None:
    """Any bytes have a printable key of 1 to 200 characters, and unreadable ones are told apart."""
    seen = set()
    for body in (*_ODD_BODIES, *case.bodies):
        key = _total(case.provider.delivery_key, Delivery(body, ()))
        if key is None:
            seen.add(case.provider.identity(Delivery(body, ()), NOW))
            continue
        assert isinstance(key, str), "the key is no text"
        assert sha256(body).hexdigest() not in key, "the bytes alone are no identity"
        assert 1 <= len(key) <= 200, f"the key has {len(key)} characters"
        assert key.isprintable(), "the key is not printable"
        seen.add(key)
    assert len(seen) >= len(set(_ODD_BODIES)), "different bytes without an id have one key"


# parse


def check_parse_is_total(case: Case) -> None:
    """parse() raises nothing for any bytes from any source, and what it says is one thing."""
    for body in (*_ODD_BODIES, *case.bodies, case.body, case.other_body):
        for variant in (body, body[:-1], body + body, body.replace(b'"', b"'"), body.replace(b":", b":[", 1)):
            _read_everywhere(case, variant)
    random_source = random.Random(20260401)
    for body in case.bodies:
        for _ in range(40):
            damaged = bytearray(body)
            for _ in range(random_source.randint(1, 4)):
                damaged[random_source.randrange(len(damaged))] = random_source.randrange(256)
            _read_everywhere(case, bytes(damaged))

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(st.binary(max_size=300) | _json_texts())
    def anything(body: bytes) -> None:
        _read_everywhere(case, body)

    anything()


def check_answers_are_read_as_documented(case: Case) -> None:
    """fetch and parse agree: an answer is one observation, of the kind and id asked about, in a known state."""
    assert case.answers, "the case has no documented answers"
    for answered in case.answers:
        reading = case.provider.parse(_statement(answered.source, answered.body, answered.kind, answered.ref))
        seen, *others = reading.observations
        assert all(each.kind != answered.kind and each.status is None for each in others), (
            f"{answered.status}: {reading}"
        )
        assert (seen.kind, seen.provider_ref) == (answered.kind, answered.ref), f"{seen.kind}, {seen.provider_ref}"
        assert seen.status == answered.status, f"read as {seen.status}"
        assert case.provider.lifecycles[answered.kind].knows(answered.status), f"{answered.status} is unknown"
        assert seen.source is answered.source, "the source was changed"
        assert seen.as_of is not None, "an answer is true of the instant at which it was asked for"


#: What a body may say of its mode, and whether the money is real then.
_MODES: tuple[tuple[str, bool, bool], ...] = (
    ("live", True, True),
    ("live", False, False),
    ("livemode", True, True),
    ("livemode", False, False),
    ("test", True, False),
    ("test", False, True),
)


def check_the_mode_of_the_money_is_told(case: Case) -> None:
    """An answer or a webhook that says live or test is read so, and one that says neither is read as neither."""
    names = {name for name, _, _ in _MODES}
    told = [(answered.source, answered.body, answered.kind, answered.ref) for answered in case.answers]
    told += [(Source.WEBHOOK, body, None, None) for body in (case.body, *case.bodies)]
    for source, body, kind, ref in told:
        content = json.loads(body)
        if not isinstance(content, dict):
            continue
        silent = _without(content, names)
        for name, value, is_live in (*_MODES, (None, None, None)):
            changed = silent if name is None else silent | {name: value}
            reading = case.provider.parse(_statement(source, json.dumps(changed).encode(), kind, ref))
            for seen in reading.observations:
                assert seen.is_live is is_live, f"{name}={value} is read as {seen.is_live}"


def _without(content: object, names: AbstractSet[str]) -> Any:
    """The JSON value without these names at any depth."""
    if isinstance(content, dict):
        return {name: _without(value, names) for name, value in content.items() if name not in names}
    return [_without(each, names) for each in content] if isinstance(content, list) else content


def check_answer_about_another_is_not_believed(case: Case) -> None:
    """An answer that names another payment than the one asked about says nothing about the one asked about."""
    for answered in case.answers:
        statement = _statement(Source.POLL, answered.body, answered.kind, "not-" + answered.ref)
        reading = case.provider.parse(statement)
        assert all(seen.provider_ref != statement.ref for seen in reading.observations), (
            "one payment stands for another"
        )


def check_a_page_says_what_its_things_say(case: Case) -> None:
    """A page of the list says of each thing what an answer to a GET says of it; of events, what a webhook hints at."""
    if case.page is None:
        return
    if case.lists_events:
        for events in ((case.body,), (case.body, case.other_body), (*case.bodies, case.body)):
            reading = _page_of(case, events)
            assert not reading.observations, "an event in a list was taken for a statement about a payment"
            told = [case.provider.parse(_statement(Source.WEBHOOK, event, None, None)) for event in events]
            missing = {hint for each in told for hint in each.hints} - set(reading.hints)
            assert not missing, f"nobody asks about {missing}"
            assert reading.hints_account or reading.hints, "an event leads to no question"
        return
    for kind in {answered.kind for answered in case.answers}:
        asked = [answered for answered in case.answers if answered.kind == kind]
        reading = _page_of(case, [answered.body for answered in asked], kind)
        assert reading.observations == tuple(_as_listed(case, answered) for answered in asked), "a page says otherwise"


def check_what_is_damaged_on_a_page_takes_nothing_with_it(case: Case) -> None:
    """Of a page every thing is accounted for: what cannot be read has no status, and its neighbours are read."""
    if case.page is None or case.lists_events:
        return
    first = case.answers[0]
    for thing, ref in (*_DAMAGED, *(case.damaged or _DAMAGED_AMOUNTS)):
        seen = _page_of(case, [first.body, thing, first.body], first.kind).observations
        assert len(seen) == 3, f"{len(seen)} of 3 things are accounted for"
        assert seen[0] == seen[2] == _as_listed(case, first), "a neighbour was lost"
        assert (seen[1].provider_ref, seen[1].status, seen[1].amount_minor) == (ref, None, None), "a guess"
        assert seen[1].source is Source.LIST, "the source was changed"


def check_a_page_of_no_known_shape_is_unreadable(case: Case) -> None:
    """A body that is no page is unreadable, so that it is parked; an empty page is none of these."""
    if case.page is None:
        return
    for body in (b"", b"[", b"null", b"{}", b'{"data":null}', b'{"data":{}}', b'{"object":"list"}', b'{"error":{}}'):
        if body == b"{}" and case.has_empty_object:
            continue
        for kind in case.provider.lifecycles:
            reading = case.provider.parse(_statement(Source.LIST, body, kind, None))
            assert reading.unreadable, f"{body!r} was read as {reading}"
    assert _page_of(case, []).note, "an empty page is nothing to park"


def check_lifecycles_are_named(case: Case) -> None:
    """Every kind has a lifecycle named after the provider, the default kind among them, with a source."""
    provider = case.provider
    assert provider.default_kind in provider.lifecycles
    for kind, lifecycle in provider.lifecycles.items():
        assert isinstance(lifecycle, Lifecycle)
        assert lifecycle.name == f"{provider.name}.{kind}"
        assert lifecycle.source, f"{kind} does not say where its states come from"


CHECKS: tuple[Callable[[Case], None], ...] = tuple(
    check for name, check in sorted(globals().items()) if name.startswith("check_")
)

_ODD_BODIES: tuple[bytes, ...] = (
    *(b"", b" ", b"\x00", b"\xff\xfe", b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"0", b"-0", b"1e400", b"NaN"),
    *(b'{"id":NaN}', b'{"id":1e999999999999}', b'{"id":' + b"9" * 5000 + b"}", b'{"id":null,"data":null}'),
    *(b'{"id":["a"],"data":["b"]}', b'{"id":{"id":{}},"data":{"id":{}}}', b'{"id":"' + b"x" * 5000 + b'"}'),
    *(b'{"id":"a\\u0000b"}', b'{"id":"\\ud800"}', '{"id":"\u202eevil"}'.encode(), b'{"id":"a","id":2}'),
    *(b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"data":' * 50_000 + b"1" + b"}" * 50_000),
    b'{"data":{"id":"x","status":"paid","amount":1e999999,"currency":"usd"},"amount":1e999999}',
    b'{"data":{"id":"x","status":7,"amount":"1.005","currency":"usd"},"status":7,"amount":0.001}',
)


def _json_texts() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(
        ["id", "object", "type", "data", "status", "amount", "currency", "created_at", "metadata", "reference_id"]
    )
    leaf = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=12)
        | st.sampled_from(["event", "payment_intent", "paid", "confirmed", "USD", "usd", "BDT", "2026-04-01T10:00:00Z"])
    )
    tree = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6))
    return tree.map(_as_json)


def _as_json(value: object) -> bytes:
    import json

    return json.dumps(value).encode("utf-8")  # writes NaN and Infinity as such, which is not JSON: all the better


def _statement(source: Source, body: bytes, kind: str | None, ref: str | None) -> Statement:
    return Statement(source=source, body=body, received_at=NOW, kind=kind, ref=ref, http_status=200 if ref else None)


def _read_everywhere(case: Case, body: bytes) -> None:
    for source in (Source.WEBHOOK, Source.CALLBACK):
        _is_one_thing(_total(case.provider.parse, _statement(source, body, None, None)))
    for kind in case.provider.lifecycles:
        for source in (Source.CREATE, Source.POLL, Source.CANCEL, Source.CALLBACK):
            ref = None if source is Source.CREATE else "asked-about"
            reading = _total(case.provider.parse, _statement(source, body, kind, ref))
            _is_one_thing(reading)
            if source is not Source.CALLBACK:
                assert all(seen.kind and seen.provider_ref for seen in reading.observations), "an answer about nothing"
        pages = [body] if case.page is None else [body, case.page([body, body])]
        for page in pages:
            reading = _total(case.provider.parse, _statement(Source.LIST, page, kind, None))
            _is_one_thing(reading)
            assert all(seen.provider_ref or seen.status is None for seen in reading.observations), "a state of nothing"


#: Things that no provider's page should hold, with the id that they show.
_DAMAGED: tuple[tuple[bytes, str | None], ...] = (
    *((b"null", None), (b"7", None), (b'"x"', None), (b"[]", None), (b"{}", None), (b'{"id":7}', None)),
    (b'{"id":"","status":"paid","state":"sent"}', None),
    (b'{"id":"damaged","status":{"paid":true},"state":[],"amount":[],"currency":7}', "damaged"),
)

#: Where the amount is named so; a Case whose provider names it otherwise has its own.
_DAMAGED_AMOUNTS: tuple[tuple[bytes, str | None], ...] = (
    (b'{"id":"damaged","status":"paid","state":"sent","amount":"1e9999","currency":"USD"}', "damaged"),
)


def _page_of(case: Case, things: Sequence[bytes], kind: str | None = None) -> Reading:
    assert case.page is not None
    return case.provider.parse(_statement(Source.LIST, case.page(things), kind or case.provider.default_kind, None))


def _as_listed(case: Case, answered: Answered) -> Observation:
    seen, *_ = case.provider.parse(_statement(Source.POLL, answered.body, answered.kind, answered.ref)).observations
    return structs.replace(seen, source=Source.LIST)


def _is_one_thing(reading: Reading) -> None:
    assert isinstance(reading, Reading), "parse() returned something else"
    said = bool(reading.observations), bool(reading.unreadable), bool(reading.hints or reading.hints_account)
    assert sum(said) == 1 or (not any(said) and reading.note), f"not one thing: {reading}"
    for seen in reading.observations:
        for amount in (seen.amount_minor, *structs.astuple(seen.sums), *(part.amount_minor for part in seen.parts)):
            assert amount is None or type(amount) is int, f"an amount of type {type(amount).__name__}"
        for text in (seen.provider_ref, seen.reference, seen.status, seen.kind, seen.currency):
            assert text is None or (isinstance(text, str) and len(text) <= 200 and "\0" not in text), "unfit to store"
        for name, value in seen.facts.items():
            assert isinstance(name, str), "a fact without a name"
            assert value is None or (isinstance(value, str) and "\0" not in value), f"fact {name} is unfit to store"
        for instant in (seen.as_of, seen.expires_at, seen.capture_by):
            assert instant is None or instant.tzinfo is not None, "an instant without a zone"
    assert all(isinstance(hint, str) and len(hint) <= 200 and "\0" not in hint for hint in reading.hints), "a bad hint"


def _total(function: Callable[..., object], argument: object) -> object:
    try:
        return function(argument)
    except Exception as fault:
        raise AssertionError(f"{function.__name__} leaked {type(fault).__name__}: {fault}") from fault
