"""The mail or chat message of an effect: its meaning, what to do, and a link.

Pure. What others wrote (reasons, references) is laid out as one line each, without any character that steers a header,
a terminal or the direction of writing.
"""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import Enum
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from fulfilment.contract import OwedEffect
from statemachine.errors import InvalidAmount
from statemachine.money import from_minor


@dataclass(frozen=True, slots=True)
class EffectWording:
    """Wording of an effect: parts of a subject, and whole sentences.

    `begins` and `over` follow the account's name in a subject.
    """

    begins: str
    over: str = "is over"
    means: str = "The effect is owed to this sink."
    do: str = "Look at the page below."


#: By statemachine.phases.Alarm.
ALARMS: Final = {
    "silent": EffectWording(
        "is silent",
        "is silent no more",
        "No verified delivery came for longer than is plausible. Payments are asked about meanwhile, so that they are "
        "known later and not lost.",
        "Look at the provider's status page and whether our URL is still registered there, then at the rejected "
        "deliveries (receipted rejected list). If several accounts are silent at once, look at the way in: DNS, the "
        "proxy, the certificate (receipted doctor).",
    ),
    "push_loss": EffectWording(
        "loses pushes",
        "loses no more pushes than it may",
        "Changes are found by asking that no webhook or callback ever told of. Payments are known later, and questions "
        "use up the budget.",
        "Ask the provider for its delivery log, and see receipted push-quality for which event it is.",
    ),
    "unverified": EffectWording(
        "has every delivery rejected",
        "has its deliveries verified again",
        "Deliveries name payments that are known here, and none of them can be verified: most likely the provider "
        "signs with another key, or a clock is wrong. What was rejected is kept in quarantine.",
        "Add the provider's new key beside the old one (or set the clock), restart, and redeem what is in quarantine: "
        "receipted rejected redeem.",
    ),
    "drift": EffectWording(
        "has drifted",
        "has drifted no more",
        "A reconciliation found what no delivery and no answer had told. What it found is recorded.",
        "Read the report: receipted reconciliations show. Then ask the provider why nothing was sent.",
    ),
    "unreachable": EffectWording(
        "cannot be asked",
        "can be asked again",
        "The provider's API answers no question, so that only what it sends by itself is known. Payments that it "
        "does not tell of wait.",
        "Look at the provider's status page, then at this service's way out: DNS, proxy, firewall. It goes on by "
        "itself as soon as a question is answered.",
    ),
    "dead_letters": EffectWording(
        "has dead messages or effects",
        "has no dead message or effect left",
        "Something was tried as often as configured, and was given up: what a provider said is not applied, or a sink "
        "was not told.",
        "See receipted inbox list --status dead and receipted outbox list --status dead for why; mend that, then "
        "replay or redrive them.",
    ),
}

#: By what follows the subject in an effect's name.
ENDINGS: Final = {
    "review_required": EffectWording(
        "needs review",
        means="A person must decide about this payment. Where money is in doubt, fulfilment is withheld until then.",
        do="Read the payment's page, ask the provider where that is needed, and resolve it with a reason.",
    ),
    "review_closed": EffectWording("needs review", "needs no review any more"),
    "authorised": EffectWording(
        "is authorised", means="The money is guaranteed, and not captured.", do="Capture it before that ends."
    ),
    "paid": EffectWording("is paid", means="The money is yours.", do="Fulfil, once for each payment."),
    "settled": EffectWording("is settled", means="The money has reached your bank.", do="Nothing, unless you book it."),
    "failed": EffectWording("has failed", means="It ended, and was never paid.", do="Nothing, unless the payer asks."),
    "cancelled": EffectWording("is cancelled", means="It was withdrawn before it was paid.", do="Nothing."),
    "expired": EffectWording("has expired", means="It was not paid in time.", do="Nothing, unless the payer asks."),
    "refunded": EffectWording("is refunded", means="It was paid, and given back.", do="Take back what was fulfilled."),
    "reversed": EffectWording(
        "is reversed", means="The money was there, and is gone again.", do="Stop or take back what was fulfilled."
    ),
    "restored": EffectWording(
        "is restored", means="The money that was gone is there again.", do="Go on with what was stopped."
    ),
    "captured": EffectWording("has a capture", means="Another sum of it was captured.", do="Nothing."),
    "refund_changed": EffectWording(
        "has a refund that changed", means="A refund was begun, done, or failed.", do="Nothing, unless you book it."
    ),
    "disputed": EffectWording(
        "is disputed", means="The payer's bank reclaims money.", do="Answer at the provider before its deadline."
    ),
    "dispute_won": EffectWording("has a dispute that is won", means="The money stays yours.", do="Nothing."),
    "dispute_lost": EffectWording(
        "has a dispute that is lost", means="The payer's bank took money back.", do="Take back what was fulfilled."
    ),
}


#: ASCII only on the wire: every server takes it, and no line is longer than it may be. Source: RFC 5322, section 2.1.1.
_POLICY: Final = SMTP.clone(cte_type="7bit")
_MAX_SUBJECT_CHARS: Final = 140
_MAX_LINE_CHARS: Final = 1000

#: What is told of a payment, in this order; of whatever else a payload holds nothing is.
_FACTS: Final = {
    "payment": "Payment",
    "kind": "Kind",
    "reference": "Your reference",
    "provider_ref": "Provider's id",
    "state": "State",
    "review": "Review",
}


@dataclass(frozen=True, slots=True)
class Letterhead:
    """Sender, recipients and links of every mail of a sink."""

    sender: str
    recipients: tuple[str, ...]
    public_url: str = ""  #: where the console is; empty where there is none
    tests: frozenset[str] = field(default_factory=frozenset)  #: accounts that are at a provider's sandbox

    @property
    def domain(self) -> str:
        """Under which the mails are named."""
        return self.sender.rpartition("@")[2].lower()


class Tone(Enum):
    """Attention that a message calls for."""

    CALL = "call"  #: a person must look
    NEWS = "news"
    OVER = "over"  #: what an earlier message called for is over


@dataclass(frozen=True, slots=True)
class Notification:
    """A message to people by another way than mail, as plain text."""

    title: str  #: the same for the beginning and the end, by which paging services tell what is over
    body: str
    tone: Tone


#: Signs by which chats call people, link, or lay out; what others wrote must do none of it.
_CHAT_SIGNS: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "[": "(", "]": ")", "`": "'", "*": "∗"})


def notification(owed: OwedEffect, head: Letterhead) -> Notification:
    """Write the message of an effect to a chat or paging service.

    Raises ValueError where the payload is none of an effect.
    """
    data = _data(owed.payload)
    account, words, is_over, first = _heading(owed, data)
    lines = _body(owed, data, head, first, words, is_over=is_over)
    is_call = "alarm" in data or owed.effect.endswith(".review_required")
    name = f"{account}: {_line(data.get('alarm') or _named(owed, data))}"
    return Notification(
        f"Receipted{' test' if account in head.tests else ''}, {_short(name)}".translate(_CHAT_SIGNS),
        "\n".join(lines).translate(_CHAT_SIGNS),
        Tone.OVER if is_over else Tone.CALL if is_call else Tone.NEWS,
    )


def _named(owed: OwedEffect, data: Mapping[str, Any]) -> str:
    """Name what the effect is about."""
    return f"{owed.effect.partition('.')[0]} {data.get('reference') or data.get('payment') or ''}"


def _heading(owed: OwedEffect, data: Mapping[str, Any]) -> tuple[str, EffectWording, bool, str]:
    """Return account, wording, whether it is over, and the title with reason."""
    account = _line(data.get("account"))
    words = (
        ENDINGS.get(owed.effect.partition(".")[2], EffectWording(owed.effect)) if "alarm" not in data else _alarm(data)
    )
    is_over = bool(data.get("is_over")) or owed.effect.endswith(".review_closed")
    title = f"{account} {words.over if is_over else words.begins}"
    if "alarm" not in data:
        title = f"{account}: {_subject_of(owed.effect)} {words.over if is_over else words.begins}"
    return account, words, is_over, f"{title}: {_line(data.get('reason'))}"


def mail(owed: OwedEffect, head: Letterhead) -> EmailMessage:
    """Write the mail of an effect, always the same with the same Message-ID.

    An alarm's end, and a review's, answers the mail of its beginning, so that a mail program shows them together.
    Raises ValueError where the payload is none of an effect.
    """
    data = _data(owed.payload)
    account, words, is_over, first = _heading(owed, data)
    made = EmailMessage(policy=_POLICY)
    made["From"] = Address("Receipted", addr_spec=head.sender)
    made["To"] = ", ".join(head.recipients)
    made["Subject"] = _short(f"[Receipted{' test' if account in head.tests else ''}] {first}")
    made["Date"] = format_datetime(owed.created_at)
    begins, own = _names(owed, data, is_over=is_over)
    made["Message-ID"] = f"<{own}@{head.domain}>"
    if begins != own:
        made["In-Reply-To"] = made["References"] = f"<{begins}@{head.domain}>"
    made["Auto-Submitted"] = "auto-generated"
    text = "\n".join(_body(owed, data, head, first, words, is_over=is_over))
    made.set_content(text, cte="quoted-printable")
    return made


def _data(payload: str) -> Mapping[str, Any]:
    content = json.loads(payload)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        raise ValueError("the payload is none of an effect")  # noqa: TRY004 - what a JSON text that is none raises too
    return data


def _alarm(data: Mapping[str, Any]) -> EffectWording:
    name = _line(data["alarm"])
    return ALARMS.get(name, EffectWording(f"has the alarm {name}", over=f"has no longer the alarm {name}"))


def _subject_of(effect: str) -> str:
    subject = effect.partition(".")[0]
    return f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"


def _names(owed: OwedEffect, data: Mapping[str, Any], *, is_over: bool) -> tuple[str, str]:
    """Name the mail of the beginning, and this one.

    The end cannot know the other's id, only what it was of.

    An alarm is named by its account, its name and since when; a review by its payment and number (storage.outbox).
    """
    if "alarm" in data:
        identity = ["alarm", data.get("account"), data["alarm"], data.get("since")]
    elif ".review_" in owed.effect and data.get("review_number") is not None:
        identity = ["review", data.get("payment"), data["review_number"]]
    else:
        return owed.id, owed.id
    begins = sha256(json.dumps(identity).encode()).hexdigest()[:32]
    return begins, f"{begins}.over" if is_over else begins


def _body(
    owed: OwedEffect, data: Mapping[str, Any], head: Letterhead, first: str, words: EffectWording, *, is_over: bool
) -> Iterator[str]:
    yield f"{_line(first)}."
    yield ""
    yield from (f"{name}: {value}" for name, value in _facts(data) if value)
    if is_over:
        yield from ("", "What it means", "It is over. Nothing needs to be done.")
    else:
        yield from ("", "What it means", words.means, "", "What to do", words.do)
    link = _link(data, head.public_url)
    if link:
        yield from ("", link)
    yield from ("", "-- ", f"Effect {owed.id} ({owed.effect})")


def _facts(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Account", _line(data.get("account"))
    if "alarm" in data:
        yield "Since", _line(data.get("since"))
        details = data.get("details")
        for name, value in details.items() if isinstance(details, dict) else ():
            yield _line(name).replace("_", " ").capitalize(), _line(value)
        return
    for key, name in _FACTS.items():
        yield name, _line(data.get(key))
    yield "Amount", _amount(data.get("amount_minor"), data.get("currency"))


def _amount(minor: Any, currency: Any) -> str:
    if not isinstance(minor, int):
        return ""
    try:
        return f"{from_minor(minor, str(currency))} {_line(currency)}" if currency else f"{minor} minor units"
    except InvalidAmount:  # the provider may write what is no currency
        return f"{minor} minor units of {_line(currency)}"


def _link(data: Mapping[str, Any], public_url: str) -> str:
    if not public_url:
        return ""
    payment = data.get("payment")
    if payment is not None:
        return f"{public_url}/console/payments/{quote(_line(payment), safe='')}"
    return f"{public_url}/console/accounts/{quote(_line(data.get('account')), safe='')}"


def _line(value: Any) -> str:
    """Put the value on one line that can be shown.

    Control, direction and unassigned characters become spaces.
    """
    if value is None:
        return ""
    text = str(value)[: 2 * _MAX_LINE_CHARS]
    shown = "".join(" " if unicodedata.category(each)[0] == "C" or each in "\u2028\u2029" else each for each in text)
    return " ".join(shown.split())[:_MAX_LINE_CHARS]


def _short(subject: str) -> str:
    text = _line(subject)
    return text if len(text) <= _MAX_SUBJECT_CHARS else f"{text[: _MAX_SUBJECT_CHARS - 1].rpartition(' ')[0]}…"
