"""A batch of any messages ends as the same messages applied one by one: same rows, digests, effects and words."""

import copy
import itertools
import json
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from structlog.testing import capture_logs

from statemachine import own_statements
from statemachine.phases import Source
from storage import inbox
from storage.ids import new_id
from tests.property.pipeline_voices import VOICES, Telling
from tests.support.builders import PROVIDERS, a_message, our_message
from tests.support.clock import START
from tests.support.pipeline_world import World

#: What a claim leaves on a message, and no decision.
_OF_CLAIMS = {"claim_token", "available_at"}
#: Each with its column of ids.
_TABLES = {
    "inbox_message": "id",
    "payment": "id",
    "payment_poll": "payment_id",
    "transition": "id",
    "outbox_message": "id",
}

_REFS = st.sampled_from(["pi_1", "pi_2", "pi_3"])
_ORDERS = st.sampled_from(["order-1", "order-2"])
_STATES = st.sampled_from(
    ["awaiting_payment", "processing", "confirmed", "settled", "expired", "cancelled", "odd", None]
)
_SAID = [*("event",) * 6, "settlement", "transfer", "poll", "list", "wish", "created", "failed", "resolved", "return"]
_ADDRESS = "0x" + "a" * 40


def _intent(ref, status, order, amount, address):
    content = {"id": ref, "status": status, "amount": amount, "currency": "usd"}
    if order:
        content["metadata"] = {"reference": order}
    if address:
        content["payment_address"] = _ADDRESS
    return content


@st.composite
def _genius(draw):
    """Something about a payment intent, from any side."""
    what = draw(st.sampled_from(_SAID))
    intent = _intent(
        draw(_REFS),
        draw(_STATES),
        draw(st.none() | _ORDERS),
        draw(st.sampled_from([4.5, 4.5, 4.5, 5])),
        draw(st.booleans()),
    )
    return what, intent, draw(_ORDERS), draw(st.sampled_from(["acme", "strict"])), draw(st.booleans())


@st.composite
def _payfield(draw):
    """Something about an operation; a webhook alone does not say whether it is a payin or a payout."""
    state = draw(st.sampled_from(["created", "processing", "completed", "failed", "success"]))
    return "operation", draw(st.sampled_from(["payin", "payout"])), draw(_ORDERS), state, draw(st.booleans())


_THING = _genius() | _genius() | _payfield()
#: All at once, and batches that find what the one before has left.
_BATCHES = st.sampled_from([50, 3])


class Told:
    """Messages of a history, in order of arrival; what is about a payment comes after the wish for it."""

    def __init__(self):
        self.messages = []
        self._wishes = {}

    def add(self, thing):
        if thing[0] == "operation":
            return self._operation(*thing[1:])
        what, intent, order, account, is_again = thing
        about = self._wishes.get((account, order))
        if what == "event":
            event = {"id": f"evt_{new_id()}", "type": f"payment_intent.{intent['status']}", "data": intent}
            self._keep(account, "webhook", event)
            if is_again:  # the same identity with other content
                self._keep(account, "webhook", event | {"more": 1}, delivery_key=self.messages[-1].delivery_key)
        elif what == "settlement":
            self._keep(account, "webhook", {"type": "settlement.completed", "data": {"id": intent["id"]}})
        elif what == "transfer":
            named = {"to": _ADDRESS} if is_again else {"intent": intent["id"]}
            self._keep(account, "webhook", {"type": "transaction.created", "data": named})
        elif what == "poll":
            self._keep(
                account, "poll", intent, ref=intent["id"], kind="payment_intent", http_status=200, provider_time=START
            )
        elif what == "list":
            page = {"data": [intent, intent | {"id": "pi_2"}], "has_more": False}
            self._answer(account, "list", page)
        elif what == "wish" or about is None:
            self._wish(account, "payment_intent", order)
        elif what == "created":
            self._keep(
                account, "create", intent, kind="payment_intent", http_status=200, about=about, provider_time=START
            )
        elif what == "failed":
            failed = own_statements.CallFailed("create", "no", "no answer", None, is_again)
            self.messages.append(our_message(failed, about=about, account=account))
        elif what == "resolved":
            resolution = own_statements.Resolution(intent["status"] or "odd", "seen at the bank", "ann")
            self.messages.append(our_message(resolution, about=about, account=account))
        else:
            self.messages.append(a_message(source="return", account=account, body=b"", about=about))
        return None

    def _operation(self, kind, order, state, is_told):
        if ("field", order) not in self._wishes or not is_told:
            self._wish("field", kind, order)
        ref = f"ext-{order}"
        telling = Telling(ref, order, state, 450, START, new_id())
        body = VOICES[f"payfield.{kind}"].webhook(telling)
        self.messages.append(a_message(account="field", body=body))

    def _wish(self, account, kind, order):
        wanted = own_statements.CreateWanted(kind, order, 450, "USD" if account != "field" else "INR")
        self._wishes[account, order] = about = new_id()
        self.messages.append(our_message(wanted, about=about, account=account))

    def _answer(self, account, source, content, **more):
        self._keep(account, source, content, http_status=200, provider_time=START, **more)

    def _keep(self, account, source, content, **more):
        self.messages.append(a_message(account=account, source=source, body=json.dumps(content).encode(), **more))


def _counted():
    """Ids in order, the same in every run."""
    numbers = itertools.count(1)
    return lambda: f"{next(numbers):08x}-0000-7000-8000-000000000000"


def _apply(world, messages, turns=None):
    """Apply all messages: in batches, or one by one in the order of `turns`, the ids decided after each wait.

    Returns the rows of every table, what was logged above info, and the turns.
    """
    taken = []
    with patch("storage.ids.uuid_utils.uuid7", _counted()), capture_logs() as logs:
        with world.database.write() as unit:
            for message in messages:
                inbox.record(unit, [copy.copy(message)])
        for message in messages:
            said = own_statements.decode(message.body) if message.source == Source.OPERATOR else None
            if isinstance(said, own_statements.Resolution):
                world.note_resolution(message.account, message.about, said)
        worker = world.worker(traced=lambda done: taken[-1].extend(message.id for message in done))
        for turn, wait in enumerate((0, 2, 130, 4000)):
            world.clock.advance(wait)
            taken.append([])
            for message_id in turns[turn] if turns is not None else ():
                worker.step(only=[message_id])
            for _ in range(50):
                if not worker.step():
                    break
            else:
                pytest.fail("it never ends")
    with world.database.read() as unit:
        assert not inbox.depth(unit).get("pending")
        kept = {
            name: [
                {column: value for column, value in row.items() if column not in _OF_CLAIMS}
                for row in unit.execute(text(f"SELECT * FROM {name} ORDER BY {key}")).mappings()  # noqa: S608
            ]
            for name, key in _TABLES.items()
        }
    return kept, [entry["event"] for entry in logs if entry["log_level"] != "info"], taken


class Worlds:
    """A database without a row for each history and way: a file, or that of a server, one after the other."""

    def __init__(self, template, folder, server=None):
        self._template, self._folder, self._count, self._server = template, folder, itertools.count(), server

    def open(self, batch):
        database = self._server.cleaned() if self._server is not None else None
        world = World(self._template, self._folder / f"{next(self._count)}.db", database=database)
        world.settings = replace(world.settings, batch=batch)
        world.join("acme", PROVIDERS["stable_genius"])
        world.join("strict", PROVIDERS["stable_genius"], adopts=False)
        world.join("field", PROVIDERS["payfield"])
        return world


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worlds(request, template, tmp_path_factory):
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    return Worlds(template, tmp_path_factory.mktemp("batches"), server)


def _check(worlds, things, batch):
    told = Told()
    for thing in things:
        told.add(thing)
    ended, turns = [], None
    for _ in ("in batches", "one by one"):
        world = worlds.open(batch)
        try:
            *found, turns = _apply(world, told.messages, turns)
            ended.append(found)
            assert world.audit().first is None
        finally:
            world.close()

    (together, more_logs), (alone, logs) = ended
    for name in _TABLES:
        assert together[name] == alone[name], name
    assert sorted(more_logs) == sorted(logs)
    assert "message.retried" not in more_logs, "the batch was given up, and proves nothing"


#: An amount in doubt, and then goods under a reference that another payment has: one review of two points.
_TWO_DOUBTS = [
    ("event", _intent(ref, status, named, amount, address=False), "order-1", "acme", False)
    for ref, status, named, amount in (
        *[("pi_1", "awaiting_payment", None, 4.5)] * 5,
        ("pi_3", "awaiting_payment", None, 5),
        ("pi_1", "awaiting_payment", "order-2", 4.5),
        ("pi_3", "processing", "order-2", 4.5),
        ("pi_3", "confirmed", None, 4.5),
    )
]


@example(things=_TWO_DOUBTS, batch=50)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(things=st.lists(_THING, min_size=4, max_size=14), batch=_BATCHES)
def test_a_batch_ends_as_its_messages_one_by_one(worlds, things, batch):
    """Any order of events, answers, wishes, hints and people's words, of several accounts: not a byte differs."""
    _check(worlds, things, batch)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(things=st.lists(_THING, min_size=1, max_size=25), batch=_BATCHES)
def test_long_batches_end_as_their_messages_one_by_one(worlds, things, batch):
    """The same, of many and longer histories."""
    _check(worlds, things, batch)
