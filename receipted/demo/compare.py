"""What must be true at the end: every payment as its provider has it, every paid one fulfilled once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from receipted.demo.plan import ACCOUNTS
from statemachine.phases import Phase
from storage.tables import Payment

_SANDBOX_OF = {account.name: account.sandbox for account in ACCOUNTS}
_FULFILLED = frozenset({Phase.PAID.value, Phase.SETTLED.value})

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is not as it must be."""

    account: str
    payment: str
    problem: str


def truth_by_key(truth: Sequence[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """The sandbox's resources by provider, kind and id."""
    return {(str(item["provider"]), str(item["kind"]), str(item["ref"])): item for item in truth}


def compare(
    payments: Sequence[Payment], truth: Mapping[Key, Mapping[str, Any]], fulfilled: Mapping[str, int]
) -> list[Wrong]:
    """Everything that differs between what is kept here, what the providers hold, and what the shop did."""
    found: list[Wrong] = []
    seen: Counter[Key] = Counter()
    for payment in payments:
        key = (_SANDBOX_OF[payment.account], payment.kind, payment.provider_ref or "")
        seen[key] += 1 if payment.provider_ref is not None else 0
        found += (
            Wrong(payment.account, payment.id, problem)
            for problem in _problems(payment, truth.get(key), fulfilled.get(payment.id, 0))
        )
    accounts = {account.sandbox: account.name for account in ACCOUNTS}
    found += (
        Wrong(accounts[key[0]], key[2], f"the provider holds a {key[1]} {item['state']} that is not known here")
        for key, item in truth.items()
        if key not in seen
    )
    found += (Wrong(accounts[key[0]], key[2], "is kept twice") for key, count in seen.items() if count > 1)
    unknown = set(fulfilled) - {payment.id for payment in payments}
    found += (Wrong("-", payment_id, "was fulfilled and is not known here") for payment_id in unknown)
    return found


def _problems(payment: Payment, true: Mapping[str, Any] | None, times: int) -> list[str]:
    problems = []
    if true is None:
        if payment.provider_ref is not None:
            problems.append("the provider does not know it")
        elif payment.state != "not_created":
            problems.append(f"it has no answer to its create call, and is {payment.state}")
    elif (payment.state, payment.amount_minor, payment.currency) != (
        true["state"],
        true["amount_minor"],
        true["currency"],
    ):
        problems.append(f"it is {payment.state} here and {true['state']} at the provider")
    if payment.review is not None:
        problems.append(f"it still needs review: {payment.review}")
    must = 1 if payment.phase in _FULFILLED else 0
    may = 1 if must or (true is not None and true["ever_paid"]) else 0
    if not must <= times <= may:
        problems.append(f"it is {payment.state} and was fulfilled {times} times")
    return problems
