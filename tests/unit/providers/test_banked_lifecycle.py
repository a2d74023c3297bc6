import pytest

from providers.banked.provider import Banked
from statemachine.machine import moves_of
from statemachine.phases import Phase

#: Typed from the provider's state tables: state -> phase, where it may go.
TABLES = {
    "payment_session": {
        "awaiting_payer": (Phase.OPEN, {"awaiting_provider", "failed", "deleted"}),
        "awaiting_provider": (Phase.OPEN, {"awaiting_payment_consent", "failed", "deleted"}),
        "awaiting_payment_consent": (
            Phase.OPEN,
            {"initiated", "pending", "sent", "failed", "awaiting_provider", "deleted"},
        ),
        "initiated": (Phase.PROCESSING, {"pending", "sent", "failed"}),
        "pending": (Phase.PROCESSING, {"sent", "failed"}),
        "sent": (Phase.PAID, set()),
        "failed": (Phase.FAILED, set()),
        "deleted": (Phase.CANCELLED, set()),
    },
    "payin": {
        "CREATED": (Phase.OPEN, {"AWAITING_AUTHORIZATION", "FAILED", "CANCELED"}),
        "AWAITING_AUTHORIZATION": (Phase.OPEN, {"INITIATED", "FAILED", "CANCELED"}),
        "INITIATED": (Phase.PROCESSING, {"PENDING", "SENT", "FAILED", "CANCELED"}),
        "PENDING": (Phase.PROCESSING, {"SENT", "FAILED", "CANCELED"}),
        "SENT": (Phase.PAID, set()),
        "FAILED": (Phase.FAILED, set()),
        "CANCELED": (Phase.CANCELLED, set()),
    },
    "refund": {
        "awaiting_details": (Phase.OPEN, {"awaiting_payment", "externally processed", "failed", "canceled"}),
        "awaiting_payment": (Phase.OPEN, {"pending", "sent", "externally processed", "failed", "canceled"}),
        "pending": (Phase.PROCESSING, {"sent", "failed", "canceled"}),
        "sent": (Phase.REFUNDED, set()),
        "externally processed": (Phase.REFUNDED, set()),
        "failed": (Phase.FAILED, set()),
        "canceled": (Phase.CANCELLED, set()),
    },
    "payout": {
        "pending": (Phase.PROCESSING, {"sent", "failed", "canceled"}),
        "sent": (Phase.PAID, set()),
        "failed": (Phase.FAILED, set()),
        "canceled": (Phase.CANCELLED, set()),
    },
}


def test_every_kind_has_its_table():
    assert set(Banked.lifecycles) == set(TABLES)


@pytest.mark.parametrize("kind", TABLES)
def test_phases_and_ends(kind):
    lifecycle, table = Banked.lifecycles[kind], TABLES[kind]

    assert {state.name: state.phase for state in lifecycle.states} == {name: row[0] for name, row in table.items()}
    assert {s.name for s in lifecycle.states if s.terminal} == {name for name, row in table.items() if not row[1]}


@pytest.mark.parametrize("kind", TABLES)
def test_every_pair_of_states_is_a_move_or_is_not(kind):
    moves = moves_of(Banked.lifecycles[kind])
    for source, (_, targets) in TABLES[kind].items():
        for target in TABLES[kind]:
            is_move = len(moves.walk(source, target) or ()) == 1
            assert is_move == (target in targets), f"{source} -> {target}"


@pytest.mark.parametrize("kind", TABLES)
def test_every_state_can_be_the_first_that_is_heard_of(kind):
    moves = moves_of(Banked.lifecycles[kind])
    assert all(moves.walk(None, state) for state in TABLES[kind])


def test_a_payer_may_pick_another_bank():
    moves = moves_of(Banked.lifecycles["payment_session"])
    assert moves.walk("awaiting_provider", "awaiting_payment_consent") == ("awaiting_payment_consent",)
    assert moves.walk("awaiting_payment_consent", "awaiting_provider") == ("awaiting_provider",)
