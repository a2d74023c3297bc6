"""What an authentic body holds cannot hurt: it ends decided or parked, on both databases, and can be shown."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from providers.catalogue import StableGenius
from providers.contract import Provider, Reading
from receipted.cli import payments as cli_payments
from service import timeline
from statemachine import own_statements
from statemachine.observation import Observation
from statemachine.phases import Source
from storage import inbox, payment_history, payments
from storage.ids import new_id
from tests.property import hostile
from tests.property.pipeline_voices import VOICES, Voice
from tests.support.builders import our_message
from tests.support.pipeline_world import World

STATEMENTS = st.lists(
    st.fixed_dictionaries(
        {
            "source": hostile.SOURCES,
            "changes": hostile.CHANGES,
            "headers": hostile.HEADERS,
            "is_first": st.booleans(),
            "state": st.integers(0, 4),
        }
    ),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class CarelessVoice(Voice):
    """Stable Genius's voice, heard by another module."""

    used: Provider = None

    @property
    def provider(self):
        return self.used


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, template, tmp_path_factory):
    """One world for all; every example has an account of its own."""
    database = request.getfixturevalue("postgresql").cleaned() if request.param == "postgresql" else None
    made = World(template, tmp_path_factory.mktemp("hostile") / "world.db", database=database)
    made.interleaving = None
    yield made
    made.close()


def told(world, voice, said):
    """All of it is said to one account of a merchant who wants one payment, decided, and asked about."""
    name = f"{voice.kind[:8]}-{len(world.members)}"
    member, ref, payment_id = world.join(name, voice.provider), f"order-{len(world.members)}", new_id()
    wanted = own_statements.CreateWanted(voice.kind, ref, 450, voice.currency)
    world.record(our_message(wanted, about=payment_id, at=world.clock(), account=name))
    bodies = [
        hostile.say(world, member, voice, each, ref, payment_id if each["source"] is Source.CREATE else None)
        for each in said
    ]
    world.settle()
    world.clock.advance(300)
    world.run(world.poller(name).step())
    world.settle()
    return name, bodies


def shown(world, payment):
    """As a person and a program are shown it."""
    with world.database.read() as unit:
        history = payment_history.read(unit, payment.id)
    text = "\n".join(line for entry in timeline.chronicle(history) for line in (entry.title, *timeline.details(entry)))
    return json.dumps(cli_payments.as_data(history, why_next_poll=None), default=str) + text


def holds(world, voice, said):
    with capture_logs() as logs:
        name, bodies = told(world, voice, said)
    with world.database.read() as unit:
        messages = [m for m in inbox.find(unit, account=name) if m.source != "merchant"]
        known = payments.find(unit, account=name)
    assert {m.status for m in messages} <= {"decided", "parked"}, [m.last_error for m in messages]
    assert [log for log in logs if log["event"] in ("message.retried", "message.failed", "message.dead")] == []
    assert set(bodies) <= {m.body for m in messages}, "the bytes are not what came"
    for payment in known:
        assert payment.amount_minor is None or abs(payment.amount_minor) <= 10**15
        for text in (payment.provider_ref, payment.reference, payment.alias):
            assert text is None or (len(text) <= 255 and "\x00" not in text)
        assert shown(world, payment)


def check(world, voice, examples):
    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(said=STATEMENTS)
    def hold(said):
        holds(world, voice, said)

    hold()
    assert world.audit().first is None


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_whatever_an_authentic_body_holds_is_decided_or_parked(world, voice):
    """NUL, half characters, long texts, numbers beyond BIGINT and instants at the ends of time, in any field."""
    check(world, voice, 12)


@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_no_instant_hurts_wherever_it_stands(world, voice):
    """To one in the year 9999 nothing can be added; heard in each way, and the payment asked about afterwards."""
    plain = {"headers": [], "is_first": True, "state": 0, "changes": []}
    fields = ("created_at", "updated_at", "expires_at", "payment_page_expires_at", "sent_at")
    for instant in hostile.INSTANTS:
        also = dict.fromkeys(fields, instant)
        holds(world, voice, [{**plain, "source": each, "also": also} for each in (Source.WEBHOOK, Source.POLL)])


class Careless(StableGenius):
    """A provider's module that checks nothing and passes everything on."""

    def delivery_key(self, delivery):
        return str(json.loads(delivery.body).get("id"))

    def parse(self, statement):
        told = json.loads(statement.body)
        told = told.get("data", told)
        things = told if isinstance(told, list) else [told]
        return Reading(observations=tuple(self._read(thing, statement) for thing in things if isinstance(thing, dict)))

    def _read(self, thing, statement):
        texts = {name: value for name, value in thing.items() if isinstance(value, str)}
        amount = thing.get("amount")
        return Observation(
            source=statement.source,
            kind="payment_intent",
            provider_ref=texts.get("id"),
            reference=texts.get("reference"),
            alias=texts.get("payment_address"),
            status=texts.get("status"),
            amount_minor=amount if isinstance(amount, int) else None,
            currency=texts.get("currency"),
            failure_reason=texts.get("failure_reason"),
            facts=texts,
        )


@pytest.fixture(scope="module")
def careless():
    """Stable Genius, heard by that module."""
    genius = VOICES["stable_genius.payment_intent"]
    return CarelessVoice(**{**vars(genius), "used": Careless(genius.provider.options)})


@pytest.mark.parametrize("source", [Source.WEBHOOK, Source.POLL, Source.LIST])
@pytest.mark.parametrize("wrong", ["a\x00b", "\ud800", "x" * 301, 2**63], ids=["nul", "surrogate", "long", "number"])
def test_each_field_of_a_careless_provider_s_statement_is_made_keepable(world, careless, wrong, source):
    """Even where a provider's module passes on whatever it is told, each field may hold what no database keeps."""
    plain = {"source": source, "headers": [], "is_first": True, "state": 0}
    holds(world, careless, [{**plain, "changes": [(place, wrong)]} for place in range(16)])
    assert world.audit().first is None


def test_a_careless_provider_s_statements_are_made_keepable(world, careless):
    """The same for any texts, numbers and shapes in any fields."""
    check(world, careless, 25)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)
def test_hundreds_of_hostile_bodies(world, voice):
    """The same for 500 merchants of each kind."""
    check(world, voice, 500)
