"""Callback and return URLs: only those that we gave out, each for its purpose."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from receiver.returns import About, Tokens
from storage.ids import new_id
from tests.support.deliveries import event, sign
from tests.support.serving import TOKEN_KEY, Served, serving, settings


def callback(served: Served, about: About, tokens: Tokens | None = None) -> str:
    return f"/callbacks/{(tokens or served.service.tokens).issue('callback', about)}"


def came_back(served: Served, about: About) -> str:
    return f"/return/{served.service.tokens.issue('return', about)}"


def test_a_callback_is_recorded_as_being_about_its_payment(served: Served) -> None:
    """The URL tells account, kind and payment; the body must be authentic all the same."""
    about = served.payment("pf", "payout")
    delivery = event("pf")
    assert served.post(delivery, callback(served, about)).status == 200
    (row,) = served.rows()
    assert ("callback", "pf", "payout", about.payment_id, delivery.body) == (
        row.source,
        row.account,
        row.kind,
        row.about,
        row.body,
    )


def test_a_callback_without_a_valid_signature_is_quarantined_with_its_payment(served: Served) -> None:
    """A token is no signature: whoever knows the URL cannot say that it is paid."""
    about = served.payment("pf", "payout")
    answer = served.post(sign("pf", b"{}", secret="wrong-key-wrong-key"), callback(served, about))
    assert (answer.status, answer.error["code"]) == (401, "signature_wrong")
    (kept,) = served.rejected("pf")
    assert (about.payment_id, "payout") == (kept.about, kept.kind)


def test_a_callback_signed_for_another_account_is_refused(served: Served) -> None:
    """The token's account decides which keys count."""
    assert served.post(event("sg"), callback(served, served.payment("pf", "payin"))).status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_callback_url_can_be_probed(served: Served, method: str) -> None:
    """Providers look at callback URLs too."""
    assert served.request(method, callback(served, served.payment())).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("change", ["forged", "cut", "other purpose", "other key", "text", "bytes", "empty parts"])
def test_a_token_that_was_not_issued_is_answered_404(served: Served, method: str, change: str) -> None:
    """Forged, cut, for another purpose, signed by another key, or no token at all."""
    about = served.payment()
    token = served.service.tokens.issue("callback", about)
    body, _, signature = token.rpartition(".")
    other = served.service.tokens.issue("callback", replace(about, payment_id=new_id()))
    path = {
        "forged": f"{other.rpartition('.')[0]}.{signature}",
        "cut": token[:-1],
        "other purpose": served.service.tokens.issue("return", about),
        "other key": Tokens([b"another-key-of-16-bytes"]).issue("callback", about),
        "text": "hello",
        "bytes": quote(b"\xff\x00\xc3\xa9"),
        "empty parts": "..",
    }[change]
    answer = served.request(method, f"/callbacks/{path}", b"{}" if method == "POST" else None)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (404, "not_found_error", "unknown_token")
    assert body not in answer.body.decode()
    assert served.rows() == []


def test_tokens_of_a_key_that_was_rotated_out_of_signing_are_read(tmp_path: Path) -> None:
    """The first key signs, all verify: a URL that was given out stays valid while its key is configured."""
    given_out = Tokens([TOKEN_KEY.encode()])
    with serving(settings(tmp_path)) as running:
        about = running.payment()
        assert running.request("GET", callback(running, about, given_out)).status == 200
        rotated = Tokens([TOKEN_KEY.encode(), b"a-newer-key-of-enough-bytes"])
        assert about == rotated.read("callback", given_out.issue("callback", about))
        assert running.request("GET", callback(running, about, rotated)).status == 404


def test_a_callback_of_an_account_that_is_gone_is_answered_404(served: Served) -> None:
    """The token is ours; the account is not configured any more."""
    answer = served.request("GET", callback(served, About("gone", "payin", new_id())))
    assert (answer.status, answer.error["code"]) == (404, "unknown_account")


def test_a_returning_payer_is_a_hint_and_is_sent_to_the_merchants_page(served: Served) -> None:
    """303 to the page that was stored with the payment, and one message that has the provider asked."""
    about = served.payment(return_url="https://shop.example/thanks?order=1")
    answer = served.request("GET", came_back(served, about))
    assert (answer.status, answer.headers["location"]) == (303, "https://shop.example/thanks?order=1")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    (row,) = served.rows()
    assert ("return", about.payment_id, "sg", b"") == (row.source, row.about, row.account, row.body)


def test_a_returning_payer_without_a_merchants_page_sees_ours(served: Served) -> None:
    """It names the reference, as text and nothing else, and does not say that the payment was made."""
    about = served.payment(reference="<script>alert(1)</script>")
    answer = served.request("GET", came_back(served, about))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert b"<script>" not in answer.body
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in answer.body
    assert b"paid" not in answer.body


def test_a_payer_who_reloads_does_not_flood(tmp_path: Path) -> None:
    """One message in five seconds, however often the page is asked for."""
    with serving(settings(tmp_path)) as running:
        about = running.payment(return_url="https://shop.example/thanks")
        path = came_back(running, about)
        assert [running.request("GET", path).status for _ in range(30)] == [303] * 30
        rows = running.rows()
        assert len(rows) in (1, 2)  # two where five seconds end meanwhile
        assert sum(1 + row.redeliveries for row in rows) == 30


@pytest.mark.parametrize(
    "query", ["?return_url=https://evil.example", "?url=//evil.example", "?next=https://evil.example"]
)
def test_there_is_no_open_redirect(served: Served, query: str) -> None:
    """Where a payer is sent is decided by the stored payment alone."""
    about = served.payment(return_url="https://shop.example/thanks")
    answer = served.request("GET", came_back(served, about) + query, headers=[("Host", "evil.example")])
    assert answer.headers["location"] == "https://shop.example/thanks"
    without = served.request("GET", came_back(served, served.payment()) + query)
    assert (without.status, without.headers.get("location")) == (200, None)


def test_a_return_with_a_callbacks_token_is_answered_404(served: Served) -> None:
    """A token serves one purpose."""
    token = served.service.tokens.issue("callback", served.payment(return_url="https://shop.example/"))
    answer = served.request("GET", f"/return/{token}")
    assert (answer.status, answer.error["code"]) == (404, "unknown_token")
    assert served.rows() == []


def test_a_return_for_a_payment_that_is_gone_is_answered_404(served: Served) -> None:
    """The token is ours; there is no such payment in this database."""
    answer = served.request("GET", came_back(served, About("sg", "payment_intent", new_id())))
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")
