"""How each account is asked, and why a payment is asked next, as an operator sees it."""

from datetime import timedelta

from receipted.cli.exits import Exit
from storage import rate_limits
from tests.integration.cli.test_payments import create
from tests.integration.cli.test_rejected import change_key, refuse_one


def test_before_anything_was_planned(shell):
    """Budgets are known from the settings; the rest is not there yet, and nothing is in the way."""
    found = {account["account"]: account for account in shell("accounts", "--json").json}

    assert {account["asks_now"] for account in found.values()} == {"yes"}
    assert {account["planned_at"] for account in found.values()} == {None}
    assert found["alternative"]["budget"] == {"requests": 5, "seconds": 1.0}
    assert "not yet" in shell("accounts").out


def test_a_plan_a_pause_and_an_outage_are_seen(at_sandbox):
    """What there is to ask and at which price, and what is in the way."""
    create(at_sandbox, "stable")
    service = at_sandbox.service()
    service.planner().step()
    now = service.clock()
    with service.database.write() as unit:
        rate_limits.pause(unit, "stable", now, timedelta(seconds=90))
        for _ in range(3):
            rate_limits.note_outage(unit, "banked", now, lambda count: timedelta(seconds=30) if count >= 3 else None)
    service.close()
    found = {account["account"]: account for account in at_sandbox("accounts", "--json").json}
    shown = at_sandbox("accounts").out

    assert (found["stable"]["watched"], found["stable"]["price_seconds"]) == (1, 2.0)
    assert 60 < found["stable"]["paused_for_seconds"] <= 90
    assert (found["stable"]["breaker"], found["banked"]["breaker"]) == ("closed", "open")
    assert "no: paused for" in shown
    assert "no: away, tried again in" in shown


def test_a_budget_that_is_too_small_is_said(at_sandbox):
    """In the table's own words, with how much longer payments wait."""
    config = at_sandbox.config.read_text()
    account = "\n[accounts.stable.budget]\nrequests = 1\nseconds = 86400\n"
    at_sandbox.config.write_text(f"{config}\n[poller]\nlongest_seconds = 60\n{account}")
    create(at_sandbox, "stable")
    service = at_sandbox.service()
    service.planner().step()
    service.close()

    assert "the budget is too small to ask about 1 payment as often" in at_sandbox("accounts").out


def test_a_payment_says_why_it_is_asked_next(at_sandbox):
    """With the share of payments that have left the state by then."""
    payment = create(at_sandbox, "stable", "--json").json
    shown = at_sandbox("payments", "show", payment["id"]).out
    (line,) = (line for line in shown.splitlines() if line.startswith("asked next"))

    assert "of payments have left awaiting_payment at that age" in line
    assert at_sandbox("payments", "show", payment["id"], "--json").json["payment"]["why_next_poll"] in line


def test_one_account_tells_its_keys_its_quarantine_and_its_settings(shell):
    """Of secrets, where they are read from and never what they are; settings only on request."""
    change_key(shell, "stable", to_wrong=True)
    refuse_one(shell, "stable")
    change_key(shell, "stable", to_wrong=False)
    service = shell.service()
    secrets = service.settings.secret_values()
    service.close()

    data = shell("accounts", "stable", "--settings", "--json")
    plain, whole = shell("accounts", "stable"), shell("accounts", "stable", "--settings")

    assert set(data.json["capabilities"]) == {"create", "ask", "cancel", "list"}
    assert data.json["webhook_url"] == "http://127.0.0.1:8000/webhooks/stable"
    assert [(key["id"], key["standing"], key["verified_lately"]) for key in data.json["keys"]] == [
        ("sandbox", "verifies", 0)
    ]
    assert data.json["rejected"] == {"signature_wrong": 1}
    assert "signature_wrong" in plain.out
    assert "unknown_payments" not in plain.out
    assert "unknown_payments" in whole.out
    assert data.json["settings"]["secrets.api_key"] == "plain:***"
    assert not [value for value in secrets if value in data.out + whole.out]
    shell("accounts", "nobody", code=Exit.NOT_FOUND)
    shell("accounts", "--settings", code=Exit.USAGE)
