"""Payments at the four providers, as an operator types them."""

import itertools
import re

import httpx2
import pytest

from receipted.cli.exits import Exit
from tests.support.at_the_sandbox import act

numbers = itertools.count(1)
PERSON = ("--extra", "merchant_user_id=17", "--extra", '{"merchant_user_ip": "192.0.2.1"}')

#: By account: the sandbox's name of the provider, currency, first state, paid state, further options.
PROVIDERS = {
    "alternative": ("alternative_payments", "USD", "pending", "paid", ()),
    "stable": ("stable_genius", "USD", "awaiting_payment", "confirmed", ()),
    "payfield": ("payfield", "BDT", "pending", "success", PERSON),
    "payfield-old": ("payfield_old", "INR", "pending", "success", ()),
    "banked": ("banked", "GBP", "awaiting_provider", "sent", ()),
}
CANCELLING = {"stable": "cancelled", "banked": "failed"}


@pytest.fixture(params=PROVIDERS)
def account(request):
    return request.param


def create(shell, account, *more, reference=None, code=0):
    _, currency, _, _, extra = PROVIDERS[account]
    reference = reference or f"order {next(numbers)}"
    args = ("--amount", "10.00", "--currency", currency, "--reference", reference, *extra, *more)
    return shell("payments", "create", account, *args, code=code)


def pay(sandbox_url, account, payment):
    act(sandbox_url, PROVIDERS[account][0], payment["kind"], payment["provider_ref"], "pay")


def test_a_payment_is_created_once_and_says_where_to_pay(at_sandbox, account):
    """The same reference gives the same payment, in its first state, with the page where its payer pays."""
    _, currency, first, _, _ = PROVIDERS[account]

    payment = create(at_sandbox, account, "--json", reference="order 0").json
    again = create(at_sandbox, account, "--json", reference="order 0").json

    assert (payment["state"], payment["phase"], payment["amount"]) == (first, "open", "10.00")
    assert (payment["amount_minor"], payment["currency"], payment["reference"]) == (1000, currency, "order 0")
    assert payment["created_at"].endswith("Z")
    assert again["id"] == payment["id"]
    if account == "stable":
        assert payment["facts"]["payment_address"]
    else:
        assert httpx2.get(payment["checkout_url"]).status_code == 200


def test_refreshing_learns_that_it_was_paid(at_sandbox, sandbox_url, account):
    """Asking the provider brings the paid state, and its effect is owed."""
    payment = create(at_sandbox, account, "--json").json
    pay(sandbox_url, account, payment)

    refreshed = at_sandbox("payments", "refresh", payment["id"], "--json").json

    assert (refreshed["state"], refreshed["phase"]) == (PROVIDERS[account][3], "paid")
    owed = at_sandbox("outbox", "list", "--json").json
    assert [(one["effect"], one["payment_id"]) for one in owed] == [("payment.paid", payment["id"])]
    assert "payload" not in owed[0]


def test_a_payment_made_elsewhere_is_tracked(at_sandbox, sandbox_url, account, tmp_path_factory):
    """A payment that another installation created is known here once it is tracked, as it is now."""
    payment = create(at_sandbox, account, "--json").json
    pay(sandbox_url, account, payment)
    from tests.support.settings_file import write_settings

    from .conftest import Shell

    other = Shell(write_settings(tmp_path_factory.mktemp("other"), sandbox_url)).migrated()

    tracked = other("payments", "track", account, payment["provider_ref"], "--json").json

    assert tracked["id"] != payment["id"]
    assert (tracked["provider_ref"], tracked["phase"]) == (payment["provider_ref"], "paid")


def test_cancelling_is_the_providers_word(at_sandbox, account):
    """Where the provider cancels, the payment is as it says; where it has no such call, that is said."""
    payment = create(at_sandbox, account, "--json").json

    if account not in CANCELLING:
        typed = at_sandbox("payments", "cancel", payment["id"], code=Exit.FAILED)
        assert "(unsupported_by_provider)" in typed.err
        return
    cancelled = at_sandbox("payments", "cancel", payment["id"], "--json").json
    assert cancelled["state"] == CANCELLING[account]


def test_a_cancel_that_comes_too_late_says_so(at_sandbox, sandbox_url):
    """Exit code 1 and plain words for a payment that was paid first; the payment is on stdout all the same."""
    payment = create(at_sandbox, "stable", "--json").json
    pay(sandbox_url, "stable", payment)

    typed = at_sandbox("payments", "cancel", payment["id"], "--json", code=Exit.FAILED)

    assert typed.err == "error: not cancelled: it is paid (state confirmed)\n"
    assert (typed.json["id"], typed.json["phase"]) == (payment["id"], "paid")
    owed = at_sandbox("outbox", "list", "--json").json
    assert [effect["effect"] for effect in owed] == ["payment.paid"]


def test_resolving_names_who_and_why(at_sandbox, account):
    """An operator's word is a transition with a name and a reason, and the history still proves."""
    payment = create(at_sandbox, account, "--json").json
    paid = PROVIDERS[account][3]
    args = ("--state", paid, "--reason", "seen in the bank", "--by", "Ada L.")

    resolved = at_sandbox("payments", "resolve", payment["id"], *args, "--json").json
    story = at_sandbox("payments", "show", payment["id"], "--json").json

    assert (resolved["state"], resolved["review"]) == (paid, None)
    assert (story["transitions"][-1]["actor"], story["transitions"][-1]["source"]) == ("Ada L.", "operator")
    assert [action["reason"] for action in story["operator_actions"]] == ["seen in the bank"]
    at_sandbox("audit", "verify")


def test_a_state_that_does_not_exist_is_refused(at_sandbox):
    """A resolution to an unknown state is wrong usage that names the states there are."""
    payment = create(at_sandbox, "stable", "--json").json

    args = ("--state", "paid", "--reason", "r", "--by", "b")
    typed = at_sandbox("payments", "resolve", payment["id"], *args, code=Exit.USAGE)

    assert "it has: awaiting_payment, confirmed" in typed.err


def test_another_amount_under_the_same_reference_is_a_conflict(at_sandbox):
    """A reference stands for one payment; other parameters are refused."""
    create(at_sandbox, "stable", reference="order 0")

    typed = create(at_sandbox, "stable", "--return-url", "https://shop.example/", reference="order 0", code=Exit.FAILED)

    assert "(idempotency_key_conflict)" in typed.err


def test_the_timeline_tells_what_came_and_what_was_sent(at_sandbox, sandbox_url):
    """Shown in order: the wish, the answer, the transitions with their cause, the effect owed, and who did what."""
    payment = create(at_sandbox, "stable", "--json").json
    pay(sandbox_url, "stable", payment)
    at_sandbox("payments", "refresh", payment["id"])
    args = ("--state", "expired", "--reason", "a test", "--by", "Ada L.")
    at_sandbox("payments", "resolve", payment["id"], *args)

    shown = at_sandbox("payments", "show", payment["id"][-12:]).out

    expected = [
        "amount                10.00 USD",
        "Timeline",
        "The merchant wants this payment",
        "came: merchant ",
        "noted: the merchant wants a payment_intent",
        "The provider answered our create call: 201",
        "came: create ",
        "advanced: new -> awaiting_payment",
        "transition 1: new -> awaiting_payment, phase open",
        "We asked, and the provider answered: 200",
        "owed: payment.paid to shop",
        "transition 2: awaiting_payment -> confirmed, phase paid",
        "Ada L.: resolve",
        "why: a test",
        "Ada L. said that it is expired",
        "transition 3: confirmed -> expired, FORCED, said by Ada L., an operator, phase expired",
    ]
    at = [shown.find(words) for words in expected]
    assert -1 not in at, expected[at.index(-1)]
    assert at == sorted(at)


def test_neither_bodies_nor_headers_are_in_what_is_shown(at_sandbox):
    """What may hold personal data is left out of every list and timeline."""
    payment = create(at_sandbox, "stable", "--json").json

    story = at_sandbox("payments", "show", payment["id"], "--json").json
    listed = at_sandbox("inbox", "list", "--json").json

    for message in [*story["inbox_messages"], *listed]:
        assert not {"body", "headers"} & set(message)
        assert message["size_bytes"] > 0


def test_an_id_may_be_given_in_part(at_sandbox):
    """The whole id, with or without dashes, its end or its beginning name a payment, unless several fit."""
    first, second = (create(at_sandbox, "stable", "--json").json["id"] for _ in range(2))

    for part in (first, first.replace("-", ""), first.upper(), first[-8:], first[:30]):
        assert at_sandbox("payments", "show", part, "--json").json["payment"]["id"] == first
    shared = at_sandbox("payments", "show", first[:8], "--json", code=None)
    if second.startswith(first[:8]):
        assert (shared.code, shared.json["error"]["code"]) == (Exit.USAGE, "ambiguous_id")
        assert first in shared.json["error"]["message"]
        assert second in shared.json["error"]["message"]


def test_a_list_goes_on_where_it_was_cut(at_sandbox):
    """Pages begin with the newest, and the note beside a cut list says how to go on."""
    made = [create(at_sandbox, "stable", "--json").json["id"] for _ in range(3)]

    page = at_sandbox("payments", "list", "--limit", "2")
    rest = at_sandbox("payments", "list", "--after", made[1], "--json").json

    assert f"--after {made[1]}" in page.err
    assert [one["id"] for one in rest] == made[:1]


def test_filters_narrow_a_list(at_sandbox, sandbox_url):
    """Account, phase, state, reference and review each leave what they name."""
    paid = create(at_sandbox, "stable", "--json", reference="order A").json
    create(at_sandbox, "banked", reference="order B")
    pay(sandbox_url, "stable", paid)
    at_sandbox("payments", "refresh", paid["id"])

    for args in (["--account", "stable"], ["--phase", "paid"], ["--state", "confirmed"], ["--reference", "order A"]):
        assert [one["id"] for one in at_sandbox("payments", "list", *args, "--json").json] == [paid["id"]]
    assert at_sandbox("payments", "list", "--review", "--json").json == []


def test_a_reference_that_no_key_could_hold_is_refused(shell):
    """Before anything is recorded or sent."""
    typed = create(shell, "stable", reference="x" * 201, code=Exit.USAGE)

    assert "1 to 200 characters" in typed.err
    assert shell("payments", "list", "--json").json == []


def test_a_providers_text_cannot_steer_the_terminal(at_sandbox):
    """What turns the direction of a line, which a name may hold, reaches no terminal; nothing else is a name."""
    create(at_sandbox, "stable", reference="order \u202ex")
    create(at_sandbox, "stable", reference="order \x1b[2Jx", code=Exit.USAGE)

    for args in (["payments", "list"], ["inbox", "list"]):
        told = at_sandbox(*args).out
        assert "\u202e" not in told
        assert "\x1b" not in told


def test_a_provider_that_cannot_be_reached_leaves_a_payment_that_was_not_created(shell):
    """A create call that cannot have arrived fails, and the payment says so."""
    typed = create(shell, "alternative", code=Exit.FAILED)

    assert "cannot be reached" in typed.err
    assert shell("payments", "list", "--json").json[0]["state"] == "not_created"


WRONG = {
    "--amount": ("1e3", "1_000", "１０", " 10", "+10", "-10", "10.", ".5", "10,00", ""),
    "--currency": ("ıqd", "ßd", "ﬁm", " USD", "US", ""),
    "--reference": ("a\nb", "a\tb", "\x1b[31m", " ", "\u3000", "", "..", "a/../b", "\udcff"),
    "--return-url": ("javascript:alert(1)", "http://shop.example/", "/thanks", ""),
    "--extra": ('{"a": 1, "a": 2}', '{"a": NaN}', '{"a": {"b": 1e999}}', '{"a": [{"b": 1, "b": 2}]}'),
}


@pytest.mark.parametrize("option", WRONG)
def test_what_cannot_be_sent_and_read_back_is_refused_at_the_command_line(shell, option):
    """Nothing is recorded: the wish is refused before that."""
    for wrong in WRONG[option]:
        args = {"--amount": "10.00", "--currency": "USD", "--reference": "order-1", option: wrong}
        shell("payments", "create", "stable", *(part for pair in args.items() for part in pair), code=Exit.USAGE)

    assert shell("inbox", "list", "--json").json == []


def test_what_cannot_be_asked_for_is_refused_at_the_command_line(shell):
    for wrong in WRONG["--reference"]:
        shell("payments", "track", "stable", wrong, code=Exit.USAGE)
    for option in ("--reference", "--provider-ref", "--state", "--kind"):
        for wrong in ("a\nb", "\udcff", "x" * 300):
            shell("payments", "list", option, wrong, code=Exit.USAGE)
    shell("payments", "list", "--search", "\udcff", code=Exit.USAGE)
    for text in ("a\nb", "\u00a0", "x" * 300):
        assert shell("payments", "list", "--search", text, "--json").json == []


@pytest.mark.slow
def test_a_name_with_any_space_in_it_is_created_listed_and_found(at_sandbox, sandbox_url):
    """Sent and read back, from the command line to the payer and back."""
    for reference in ("order\u00a01", "注文\u3000一", "👨\u200d👩\u200d👧 1", "or\u00adder", "\ufefforder", " order "):
        payment = create(at_sandbox, "payfield", "--json", reference=reference).json
        pay(sandbox_url, "payfield", payment)
        paid = at_sandbox("payments", "refresh", payment["id"], "--json").json

        assert (payment["provider_ref"], payment["reference"]) == (reference, reference)
        assert paid["phase"] == "paid"
        for options in (("--reference", reference), ("--provider-ref", reference), ("--search", reference)):
            (found,) = at_sandbox("payments", "list", *options, "--json").json
            assert found["id"] == payment["id"]


def test_a_payment_is_created_and_shown_with_the_merchants_own_words(at_sandbox):
    own = ("--description", "2 tickets", "--metadata", "cart=c-88", "--metadata", "note=a=b")
    made = create(at_sandbox, "stable", *own, "--json").json

    assert (made["description"], made["merchant_metadata"]) == ("2 tickets", {"cart": "c-88", "note": "a=b"})
    shown = at_sandbox("payments", "show", made["id"]).out
    assert [line.split(None, 1) for line in shown.splitlines() if line.startswith("description")] == [
        ["description", "2 tickets"]
    ]
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("metadata ")] == ["c-88", "a=b"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--metadata", "cart"), "--metadata takes key=value"),
        (("--metadata", "cart=1", "--metadata", "cart=2"), "--metadata has 'cart' twice"),
        (("--metadata", f"cart={'v' * 501}"), "metadata.cart has at most 500 characters"),
        (("--description", "d" * 1001), "description"),
    ],
    ids=["form", "twice", "long", "description"],
)
def test_own_words_that_cannot_be_kept_are_refused(at_sandbox, given, words):
    refused = create(at_sandbox, "stable", *given, code=Exit.USAGE)

    assert words in refused.err
    assert at_sandbox("payments", "list", "--json").json == []


def paid_at_banked(shell, sandbox_url):
    """A payment of 10.00 GBP that its provider says is paid."""
    payment = create(shell, "banked", "--json").json
    pay(sandbox_url, "banked", payment)
    return shell("payments", "refresh", payment["id"], "--json").json


def test_a_part_is_refunded_once_for_each_key(at_sandbox, sandbox_url):
    """What the provider has taken is shown as pending, and a repeat with the key sends nothing more."""
    payment = paid_at_banked(at_sandbox, sandbox_url)
    args = ("payments", "refund", payment["id"], "--amount", "2.34", "--key", "return-1")

    first, again = (at_sandbox(*args, "--json").json for _ in range(2))

    (part,) = first["parts"]
    assert (part["kind"], part["amount_minor"], part["status"]) == ("refund", 234, "pending")
    assert again["parts"] == first["parts"]
    shown = at_sandbox("payments", "show", payment["id"]).out
    assert re.search(rf"^refund {part['name']} +2.34 GBP, pending$", shown, re.MULTILINE)


def test_more_than_remains_is_refused_with_what_does(at_sandbox, sandbox_url):
    payment = paid_at_banked(at_sandbox, sandbox_url)
    at_sandbox("payments", "refund", payment["id"], "--amount", "2.34")

    refused = at_sandbox("payments", "refund", payment["id"], "--amount", "7.67", code=Exit.FAILED)
    whole = at_sandbox("payments", "refund", payment["id"], "--json").json

    assert "no more than 7.66 GBP can be refunded; the payment is paid (amount_exceeded)" in refused.err
    assert sorted(part["amount_minor"] for part in whole["parts"]) == [234, 766]


def test_a_provider_without_the_call_refunds_nothing(at_sandbox, sandbox_url):
    payment = create(at_sandbox, "stable", "--json").json

    for call in ("refund", "capture"):
        assert "(unsupported_by_provider)" in at_sandbox("payments", call, payment["id"], code=Exit.FAILED).err
