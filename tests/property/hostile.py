"""Bodies that are authentic and yet hold what no database, log or person wants: drawn by Hypothesis."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from providers.contract import Answer, Delivery
from receiver.intake import verified_message
from statemachine.phases import Source
from storage.ids import new_id
from tests.property.pipeline_voices import Telling, Voice
from tests.support.pipeline_world import Member, World

#: Each has broken a program once: a C string's end, half a character, what sorts or prints differently, what is long.
TEXTS = (
    *(
        "\x00",
        "a\x00b",
        "\x00" * 300,
        "\ud800",
        "a\udfffb",
        "\x01\x1f\x7f\x80\x9f",
        "\u2028",
        "\u202e",
        "\ufeff",
        "\uffff",
    ),
    *("x" * 3, "x" * 64, "x" * 65, "x" * 200, "x" * 201, "x" * 255, "x" * 256, "x" * 301, "x" * 3000, "é" * 200),
    *("😀" * 200, "😀" * 256, "e\u0301" * 100, " ", "", "%s%(a)s{0}", "'; --", "\\u0000", "\r\nlog: line", "٣", "NaN"),
)
_NUMBERS = (
    *(0, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**15, 10**15 + 1, 10**30, 10**400, -(10**18), 0.1, 1e300, True),
    *("9" * 18, "9" * 30, "9" * 3000, "1e400", "-0", "450.00", "4.500000000000000000001", "Infinity", "0x10", "٣"),
)
INSTANTS = (
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00"),
    *("1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z", "2026-04-01T10:00:00", "2026-04-01T10:00:60Z"),
)
_OTHERS: tuple[Any, ...] = (None, [], {}, [[]], {"\x00": "\x00"}, {"x" * 300: {"\ud800": ["\x00"]}})

WRONG = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(_NUMBERS),
    st.sampled_from(INSTANTS),
    st.sampled_from(_OTHERS),
    st.text(st.characters(), max_size=12),
)

#: Where something is put: the how-manieth of a body's values, and what; or what stands beside them under its own name.
CHANGES = st.lists(st.tuples(st.integers(0, 40), WRONG), min_size=1, max_size=4)

#: Latin-1 is what headers are decoded as; a NUL, CR or LF ends the request before it reaches us.
HEADERS = st.lists(
    st.tuples(st.just("x-note"), st.text(st.characters(max_codepoint=255, exclude_characters="\x00\r\n"), max_size=12)),
    max_size=2,
)

SOURCES = st.sampled_from((Source.WEBHOOK, Source.WEBHOOK, Source.POLL, Source.CREATE, Source.LIST))

#: Fields that some body of a provider has, and that no body of ours may have.
_FIELDS = (
    *("reference", "reference_id", "expires_at", "payment_address", "latest_error", "url", "created_at", "updated_at"),
    *("failure_reason", "state_reason", "sent_at", "chain", "webhook_event", "type", "topic", "transaction_type"),
)


def changed(body: bytes, changes: list[tuple[int, Any]], also: dict[str, Any] | None = None) -> bytes:
    """The same JSON with other values in some places and under some names; escapes stand for what UTF-8 has not."""
    content = json.loads(body)
    for holder in (content, content.get("data")):
        if isinstance(holder, dict):
            holder.update(also or {})
    for number, wrong in changes:
        places = list(_places(content))
        holder, key = places[number % len(places)]
        holder[key] = deepcopy(wrong)
    return json.dumps(content).encode()


def _places(content: Any) -> Any:
    """Every value below the top, as what holds it and under which key; and fields that are not there yet."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)
    if isinstance(content, dict):
        yield from ((content, name) for name in _FIELDS if name not in content)


def say(world: World, member: Member, voice: Voice, said: dict[str, Any], ref: str, about: str | None) -> bytes:
    """One authentic statement with such changes is recorded; returns its exact bytes."""
    state = voice.lifecycle.initial[0] if said["is_first"] else sorted(voice.lifecycle.by_name)[said["state"] % 5]
    told = Telling(ref, ref, state, 450, world.clock(), new_id())
    if said["source"] is Source.WEBHOOK:
        body = changed(voice.webhook(told) or voice.answer(told), said["changes"], said.get("also"))
        signed = voice.delivery(body, world.clock())
        delivery = Delivery(body, (*signed.headers, *said["headers"]))
        world.record(verified_message(member.receiving, None, None, delivery, world.clock()))
        return body
    body = changed(voice.answer(told), said["changes"], said.get("also"))
    if said["source"] is Source.LIST:
        body = b'{"data":[' + body + b"," + voice.answer(told) + b"]}"
    asked = ref if said["source"] is Source.POLL else None
    answer = Answer(200, body, world.clock(), voice.kind, asked)
    world.record(world.answered(member.name, said["source"], answer, about))
    return body
