"""What people who are told by e-mail can rely on, seen from a mail server over real SMTP."""

import asyncio
import ipaddress
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import parsedate_to_datetime

import pytest

from fulfilment.contract import Delivered, Failed, OwedEffect, Result
from fulfilment.email_message import Letterhead, mail
from fulfilment.email_sink import EmailSink
from fulfilment.errors import InsecureSinkUrl, InvalidSink
from tests.support import tls
from tests.support.smtp import SmtpServer

AT = datetime(2026, 4, 1, 12, 30, tzinfo=UTC)
LOCAL = [ipaddress.ip_network("127.0.0.0/8")]
HEAD = Letterhead(
    "receipted@example.com", ("on-call@example.com", "ops@example.com"), "https://pay.example.com", frozenset({"shop"})
)
SILENT = {
    "account": "shop",
    "alarm": "silent",
    "since": "2026-04-01T09:10:00+00:00",
    "is_over": False,
    "reason": "no verified delivery for 3 h 20 min, in which about 5 should have come",
    "details": {"silent_seconds": 12000, "expected_deliveries": 5.0},
}
REVIEW = {
    "payment": "0197c1f0-0000-7000-8000-000000000002",
    "account": "acme",
    "kind": "payment_intent",
    "provider_ref": "pi_7",
    "reference": "order-7",
    "amount_minor": 1250,
    "currency": "EUR",
    "state": "succeeded",
    "review": "amount_mismatch",
    "review_number": 2,
    "reason": "the amount is 12.00 EUR, 12.50 EUR was asked for",
    "raw": "what else a payload may hold",
}


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.authority("a test's authority")


@pytest.fixture(scope="module")
def certificate(authority: tls.Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return tls.served(tmp_path_factory.mktemp("mail"), "mail.example", authority)


@pytest.fixture
def server(certificate: tuple[str, str]) -> Iterator[SmtpServer]:
    with SmtpServer(certificate) as made:
        yield made


async def here(_host: str, _port: int) -> list[str]:
    """Every name is this machine's."""
    return ["127.0.0.1"]


def owed(data: dict[str, object] | None = None, effect: str = "account.silent", **changes: object) -> OwedEffect:
    known = {
        "id": "0197c1f0-0000-7000-8000-000000000001",
        "effect": effect,
        "payment_id": None,
        "attempt": 1,
        "payload": json.dumps({"type": effect, "data": SILENT if data is None else data}),
        "created_at": AT,
    }
    return OwedEffect(**{**known, **changes})  # type: ignore[arg-type]


def sink_of(port: int, authority: tls.Authority | None, *, scheme: str = "smtp", **settings: object) -> EmailSink:
    given = {
        "authorities": authority.pem.decode() if authority else None,
        "allowed_networks": LOCAL,
        "resolver": here,
        **settings,
    }
    host = given.pop("host", "mail.example")
    return EmailSink("mail", f"{scheme}://{host}:{port}", given.pop("head", HEAD), **given)  # type: ignore[arg-type]


def deliver(sink: EmailSink, *effects: OwedEffect) -> list[Result]:
    async def run() -> list[Result]:
        results = [await sink.deliver(effect, AT) for effect in effects or (owed(),)]
        await sink.aclose()
        return results

    return asyncio.run(run())


# -- the way there


def test_by_starttls_with_a_password(server: SmtpServer, authority: tls.Authority) -> None:
    """Nothing but EHLO and STARTTLS is said in the clear, and the one mail goes to all recipients at once."""
    sink = sink_of(server.port, authority, username="us", password="the pass word")
    assert deliver(sink) == [Delivered()]
    [taken] = server.taken
    assert (taken.is_secure, taken.login) == (True, ("us", "the pass word"))
    assert (taken.sender, taken.recipients) == (HEAD.sender, HEAD.recipients)
    assert [line.partition(" ")[0] for line in server.said[:3]] == ["ehlo", "STARTTLS", "ehlo"]
    assert server.said[0] == "ehlo example.com"


def test_by_tls_from_the_first_byte(certificate: tuple[str, str], authority: tls.Authority) -> None:
    """With smtps:// nothing at all is said in the clear."""
    with SmtpServer(certificate, is_implicit=True) as server:
        assert deliver(sink_of(server.port, authority, scheme="smtps")) == [Delivered()]
        assert [taken.is_secure for taken in server.taken] == [True]


def test_without_starttls_nothing_is_said(server: SmtpServer, authority: tls.Authority) -> None:
    """Whoever sits between us and the server and takes the offer out of its answer learns nothing, and no mail goes."""
    server.mode.has_starttls = False
    [result] = deliver(sink_of(server.port, authority, username="us", password="the pass word"))
    assert result == Failed("the server offers no STARTTLS, or no way to log in that is known here")
    assert [line.partition(" ")[0] for line in server.said] in (["ehlo"], ["ehlo", "QUIT"])
    assert not server.taken


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_another_ones_certificate(certificate: tuple[str, str], authority: tls.Authority, scheme: str) -> None:
    """A certificate of another name, or of an authority that is not trusted, ends it before anything is said."""
    with SmtpServer(certificate, is_implicit=scheme == "smtps") as server:
        results = [
            *deliver(sink_of(server.port, authority, scheme=scheme, host="other.example")),
            *deliver(sink_of(server.port, None, scheme=scheme)),
        ]
        assert [result.error.partition(" (")[0] for result in results if isinstance(result, Failed)] == [
            "the certificate does not prove the host's name"
        ] * 2
        assert not server.taken
        assert not any("MAIL" in line.upper() for line in server.said)


def test_plain_text_stays_on_this_machine(server: SmtpServer, authority: tls.Authority) -> None:
    """In development, to loopback, no TLS is needed; without that leave, or to another host, it is."""
    server.mode.has_starttls = False
    assert deliver(sink_of(server.port, None, host="127.0.0.1", allow_loopback=True)) == [Delivered()]
    assert [taken.is_secure for taken in server.taken] == [False]
    refused = [
        *deliver(sink_of(server.port, authority, host="127.0.0.1")),
        *deliver(sink_of(server.port, authority, allow_loopback=True)),
    ]
    assert [isinstance(result, Failed) and "STARTTLS" in result.error for result in refused] == [True, True]
    assert len(server.taken) == 1


def test_a_private_address_is_refused(server: SmtpServer, authority: tls.Authority) -> None:
    """A name that leads into a private network that is not allowed is not even connected to."""
    [result] = deliver(sink_of(server.port, authority, allowed_networks=()))
    assert result == Failed("the host has an address that is neither public nor allowed")
    assert not server.said


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example",
        "smtp://",
        "smtps://us:word@mail.example",
        "smtp://mail.example/path",
        "smtp://mail.example?x=1",
        "smtp://mail.example:x",
        "smtp://m%61il.example",
        "mail.example:465",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    """Whatever is no mail server's bare URL is refused at the start, and no password in it is repeated."""
    with pytest.raises(InsecureSinkUrl) as caught:
        EmailSink("mail", url, HEAD)
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        (Letterhead("receipted", ("a@example.com",)), {}),
        (Letterhead("r@example.com", ()), {}),
        (Letterhead("r@example.com", ("a@example.com\r\nBcc: b@example.com",)), {}),
        (Letterhead("r@example.com", ("A <a@example.com>",)), {}),
        (HEAD, {"username": "us"}),
        (HEAD, {"username": "us", "password": "line\nbreak"}),
        (HEAD, {"timeout": 0}),
        (HEAD, {"authorities": "no certificate"}),
    ],
)
def test_settings_that_cannot_work(head: Letterhead, settings: dict[str, object]) -> None:
    """What could not work, or would steer a header, is refused at the start."""
    with pytest.raises(InvalidSink):
        EmailSink("mail", "smtps://mail.example", head, **settings)  # type: ignore[arg-type]


# -- what the server answers


@pytest.mark.parametrize(
    ("change", "error", "is_final"),
    [
        ({"greeting": "421 4.3.2 not now"}, "answered 421 4.3.2 before the message", False),
        ({"greeting": "554 no"}, "answered 554 before the message", False),
        ({"sender": "451 4.3.0 later"}, "answered 451 4.3.0 to the sender", False),
        ({"sender": "550 5.1.8 who?"}, "answered 550 5.1.8 to the sender", False),
        ({"login": "535 5.7.8 'the pass word' is wrong"}, "answered 535 5.7.8 to the username and password", False),
        ({"login": "454 4.7.0 later"}, "answered 454 4.7.0 to the username and password", False),
        ({"data": "451 4.3.0 later"}, "answered 451 4.3.0 to the message", False),
        ({"message": "452 4.3.1 full"}, "answered 452 4.3.1 to the message", False),
        ({"message": "554 5.6.0 no"}, "answered 554 5.6.0 to the message", True),
    ],
)
def test_a_refusal(
    server: SmtpServer, authority: tls.Authority, change: dict[str, str], error: str, is_final: bool
) -> None:
    """A 4xx is tried again, and so is what a person can mend in the settings; a refused message is final."""
    for name, value in change.items():
        setattr(server.mode, name, value)
    [result] = deliver(sink_of(server.port, authority, username="us", password="the pass word"))
    assert result == Failed(error, is_final=is_final)
    assert not server.taken


@pytest.mark.parametrize(
    ("replies", "is_final"),
    [
        (("550 5.1.1 nobody", "550 5.1.1 nobody"), True),
        (("550 5.1.1 nobody", "450 4.2.1 later"), False),
        (("450 4.2.1 later", "450 4.2.1 later"), False),
        (("421 4.3.2 going down", "250 ok"), False),
    ],
)
def test_every_recipient_refused(
    server: SmtpServer, authority: tls.Authority, replies: tuple[str, str], is_final: bool
) -> None:
    """It is final only where all were refused for good; addresses are told by their number."""
    server.mode.recipients = dict(zip(HEAD.recipients, replies, strict=True))
    [result] = deliver(sink_of(server.port, authority))
    assert isinstance(result, Failed)
    assert result.is_final is is_final
    assert f"recipients.0: {replies[0][:9]}" in result.error
    assert "@" not in result.error
    assert not server.taken


def test_some_recipients_refused(
    server: SmtpServer, authority: tls.Authority, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others have it, so that it is delivered; who has not is in the log, by number."""
    server.mode.recipients = {"ops@example.com": "550 5.1.1 <ops@example.com> nobody"}
    assert deliver(sink_of(server.port, authority)) == [Delivered()]
    assert [taken.recipients for taken in server.taken] == [("on-call@example.com",)]
    out, err = capsys.readouterr()
    told = out + err + caplog.text
    assert "effect.refused" in told
    assert "recipients.1: 550 5.1.1" in told
    assert "ops@" not in told


@pytest.mark.parametrize("way", ["is_silent", "drips"])
def test_a_slow_server_is_left(server: SmtpServer, authority: tls.Authority, way: str) -> None:
    """It takes no longer than the time allowed, even where each word comes in time, and its thread ends too."""
    setattr(server.mode, way, True)
    sink = sink_of(server.port, authority, timeout=0.5)
    assert deliver(sink) == [Failed("no answer within 0.5 s")]
    sink._threads.shutdown(wait=True)  # which would not return: the server goes on for as long as it is let


def test_an_end_without_an_answer_is_tried_again_as_the_same_mail(server: SmtpServer, authority: tls.Authority) -> None:
    """Nobody knows whether the server has it: it comes again, and a mail program can tell that it is the same."""
    server.mode.drops_after_data = True
    [first] = deliver(sink_of(server.port, authority))
    server.mode.drops_after_data = False
    [second] = deliver(sink_of(server.port, authority), owed(attempt=2))
    assert first == Failed("no answer (SMTPServerDisconnected)")
    assert second == Delivered()
    one, other = server.taken
    assert one.mail["Message-ID"] == other.mail["Message-ID"]
    assert one.raw.partition(b"\r\n\r\n")[2] == other.raw.partition(b"\r\n\r\n")[2]


def test_nobody_there(authority: tls.Authority) -> None:
    """A closed port is a failure, not an exception."""
    with SmtpServer() as gone:
        port = gone.port
    assert deliver(sink_of(port, authority)) == [Failed("no answer (ConnectionRefusedError)")]


def test_a_payload_of_no_effect_is_final(server: SmtpServer, authority: tls.Authority) -> None:
    """What cannot be read will never be readable: no attempt is made again."""
    results = deliver(sink_of(server.port, authority), *(owed(payload=text) for text in ("", "[]", '{"data": 1}')))
    assert results == [Failed("the payload is none of an effect", is_final=True)] * 3


# -- the mail


def test_an_alarm_says_what_it_is_and_where_to_look(server: SmtpServer, authority: tls.Authority) -> None:
    """Subject, headers and text tell a person on call what it is, since when, what to do, and where."""
    deliver(sink_of(server.port, authority))
    sent = server.taken[0].mail
    assert sent["Subject"] == (
        "[Receipted test] shop is silent: no verified delivery for 3 h 20 min, in which about 5 should have come"
    )
    assert (sent["From"], sent["To"]) == (
        "Receipted <receipted@example.com>",
        "on-call@example.com, ops@example.com",
    )
    assert parsedate_to_datetime(sent["Date"]) == AT
    assert sent["Auto-Submitted"] == "auto-generated"
    assert sent.get_content_type() == "text/plain"
    text = sent.get_content()
    for words in ("Since: 2026-04-01T09:10:00+00:00", "Silent seconds: 12000", "What it means", "What to do"):
        assert words in text
    assert "https://pay.example.com/console/accounts/shop\n" in text


def test_its_end_answers_its_beginning(server: SmtpServer, authority: tls.Authority) -> None:
    """The end has a name of its own and refers to the beginning's, which it must reckon from what both say."""
    end = {**SILENT, "is_over": True, "reason": "a verified delivery has come", "details": {}}
    other = {**SILENT, "since": "2026-04-02T00:00:00+00:00"}
    deliver(sink_of(server.port, authority), owed(), owed(end, id="2"), owed(other, id="3"))
    begun, over, again = (taken.mail for taken in server.taken)
    assert over["Subject"] == "[Receipted test] shop is silent no more: a verified delivery has come"
    assert over["In-Reply-To"] == over["References"] == begun["Message-ID"]
    assert over["Message-ID"] != begun["Message-ID"]
    assert begun["In-Reply-To"] is None
    assert again["Message-ID"] not in (begun["Message-ID"], over["Message-ID"])


def test_a_review_says_which_payment_and_why_and_its_end_answers_it() -> None:
    """Of the payload only what is named is told."""
    begun = mail(owed(REVIEW, "payment.review_required"), HEAD)
    closed = {**REVIEW, "reason": "resolved by Ada L.: it is right"}
    over = mail(owed(closed, "payment.review_closed", id="2"), HEAD)
    other = mail(owed({**REVIEW, "review_number": 3}, "payment.review_required"), HEAD)
    assert begun["Subject"] == (
        "[Receipted] acme: a payment needs review: the amount is 12.00 EUR, 12.50 EUR was asked for"
    )
    assert over["Subject"] == "[Receipted] acme: a payment needs no review any more: resolved by Ada L.: it is right"
    assert over["In-Reply-To"] == begun["Message-ID"] != other["Message-ID"]
    text = begun.get_content()
    for words in ("Your reference: order-7", "Amount: 12.50 EUR", "Review: amount_mismatch"):
        assert words in text
    assert "https://pay.example.com/console/payments/0197c1f0-0000-7000-8000-000000000002\n" in text
    assert "what else" not in text


@pytest.mark.parametrize(
    "hostile",
    [
        "x\r\nBcc: victim@example.com",
        "x\nBcc: victim@example.com\n\nbody",
        "x\rBcc: victim@example.com",
        "x\x00\x1b[2J",
        "x\u2028Bcc: victim@example.com\u2029\x85",
        "x\u202etxt.exe\u200b",
        "\ud800 lone",
        "=?utf-8?q?Bcc=3A_victim?=\r\n.\r\nMAIL FROM:<a@b>",
        "ü" * 5000,
        ".\r\n.",
    ],
)
def test_hostile_words_steer_nothing(server: SmtpServer, authority: tls.Authority, hostile: str) -> None:
    """Whatever a reason, a name or a reference holds, the headers are ours, and the mail is one and whole."""
    data = {**SILENT, "account": hostile, "reason": hostile, "since": hostile, "details": {hostile: hostile}}
    review = {**REVIEW, "payment": hostile, "reference": hostile, "reason": hostile, "currency": hostile}
    results = deliver(
        sink_of(server.port, authority),
        owed(data, payload=json.dumps({"data": data})),
        owed(review, "payment.review_required", payload=json.dumps({"data": review})),
    )
    assert results == [Delivered(), Delivered()]
    names = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"}
    for taken in server.taken:
        sent = taken.mail
        assert isinstance(sent, EmailMessage)
        assert set(sent.keys()) == names | {"Content-Transfer-Encoding"}
        assert len(sent["Subject"]) <= 140
        assert taken.raw.isascii()
        assert max(map(len, taken.raw.split(b"\r\n"))) <= 998
        text = sent.get_content() + sent["Subject"]
        assert not set(text) & set("\x00\x1b\r\x85\u2028\u2029\u202e\u200b")
        assert taken.recipients == HEAD.recipients
    assert len(server.taken) == 2


def test_without_a_console_no_page_is_named() -> None:
    """Where there is no console, no address is given that would lead nowhere."""
    text = mail(owed(), Letterhead("r@example.com", ("a@example.com",))).get_content()
    assert "http" not in text


def test_neither_password_nor_username_is_shown(server: SmtpServer, authority: tls.Authority) -> None:
    """A sink that is printed, as in a traceback, shows neither."""
    sink = sink_of(server.port, authority, username="mail-user", password="the-pass-word")
    assert "the-pass-word" not in repr(sink) + repr(sink._server)
