"""Unverified traffic is limited; verified traffic never."""

from pathlib import Path

from tests.support.deliveries import event, sign
from tests.support.serving import Served, serving, settings

FORGED = {"secret": "wrong-key-wrong-key"}


def forged(served: Served, times: int, account: str = "sg", **more: object) -> list[int]:
    return [served.post(sign(account, b"%d" % n, **FORGED), **more).status for n in range(times)]


def test_unverified_deliveries_beyond_the_limit_are_answered_429(tmp_path: Path) -> None:
    """They are not kept any more, the answer says when to come again, and verified ones pass as before."""
    with serving(settings(tmp_path, unverified_per_minute=3)) as running:
        assert forged(running, 5) == [401, 401, 401, 429, 429]
        assert len(running.rejected("sg")) == 3
        answer = running.post(sign("sg", b"x", **FORGED))
        assert (
            answer.status,
            answer.error["type"],
            answer.error["code"],
            answer.headers["retry-after"],
        ) == (429, "rate_limit_error", "too_many_unverified", "60")
        assert [running.post(event("sg")).status for _ in range(20)] == [200] * 20


def test_the_limit_is_per_client_and_account(tmp_path: Path) -> None:
    """One who forges spends nobody else's allowance, and none of another account."""
    with serving(settings(tmp_path, unverified_per_minute=2)) as running:
        assert forged(running, 3) == [401, 401, 429]
        assert forged(running, 3, source="127.0.0.2") == [401, 401, 429]
        assert forged(running, 3, account="bk") == [401, 401, 429]


def test_another_name_in_x_forwarded_for_is_no_other_client(tmp_path: Path) -> None:
    """A client cannot write itself a new allowance."""
    with serving(settings(tmp_path, unverified_per_minute=2)) as running:
        answers = [
            running.post(sign("sg", b"x", **FORGED), headers=[("X-Forwarded-For", f"203.0.113.{n}")]).status
            for n in range(4)
        ]
        assert answers == [401, 401, 429, 429]


def test_verified_deliveries_are_never_limited(tmp_path: Path) -> None:
    """However many come."""
    with serving(settings(tmp_path, unverified_per_minute=1)) as running:
        assert [running.post(event("pf")).status for _ in range(50)] == [200] * 50
