"""Every provider that is a page under the providers' contract, with the page's own samples and no code for each.

The signer here is written with the standard library and reads the page as a person does. That the page itself is right
is for its vectors, its samples and the official SDKs (test_sdks.py): what is made from a page agrees with it.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from providers.catalogue import PROVIDERS
from providers.contract import Delivery, Statement
from providers.engine.page import KindSection, Sample, SignatureSection
from providers.engine.proof import prove
from providers.engine.provider import DeclaredProvider
from statemachine.phases import Source
from tests.contract.providers.provider_contract import (
    CHECKS,
    NOW,
    SECRET,
    Answered,
    Case,
    Sign,
    check_the_mode_of_the_money_is_told,
)

PAGES = {name: kind for name, kind in PROVIDERS.items() if issubclass(kind, DeclaredProvider)}
#: Checks of a proof, which a page without one has not.
_OF_SIGNATURES = {
    "check_authentic_is_accepted",
    "check_comparison_is_constant_time",
    "check_contradicting_headers_are_rejected",
    "check_missing_header_is_rejected",
    "check_no_active_key_rejects",
    "check_rotation_records_the_key_that_matched",
    "check_wrong_secret_is_rejected",
}
_PUSHED = ("webhook", "callback")
_SOURCES = {"poll": Source.POLL, "create": Source.CREATE, "cancel": Source.CANCEL}


def body_of(kind: type[DeclaredProvider], sample: Sample) -> bytes:
    return (kind.source.folder / sample.file).read_bytes()


def signer(section: SignatureSection) -> Sign:
    """Sign as the page says, with the standard library's hmac."""

    def sign(secret: bytes, body: bytes, at: datetime) -> Mapping[str, str]:
        if section.mode == "none":
            return {}
        if section.mode == "token":
            return {section.header: section.prefix + secret.decode()}
        stamp = {
            "unix": str(int(at.timestamp())),
            "any": str(int(at.timestamp())),
            "unix_ms": str(int(at.timestamp() * 1000)),
            "iso": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }[section.time_format]
        parts = {"{time}": stamp.encode(), "{body}": body}
        signed = b"".join(parts.get(part, part.encode()) for part in section.signed)
        digest = hmac.digest(secret, signed, section.algorithm)
        text = section.prefix + (digest.hex() if section.encoding == "hex" else base64.b64encode(digest).decode())
        if section.form == "pairs":
            time = f"{section.time}={stamp}{section.separator}" if section.time else ""
            return {section.header: f"{time}{section.value}={text}"}
        if section.form == "time.signature":
            return {section.header: f"{stamp}.{text}"}
        return {section.header: text} | ({section.time_header: stamp} if section.time_header else {})

    return sign


class FormCase(Case):
    """A case of a page whose signature is in the form that is delivered, so that no header authenticates."""

    def delivery(self, *, secret: bytes | None = None, body: bytes | None = None, at: datetime = NOW) -> Delivery:
        """Sign what the given form holds, or other bytes as what it holds."""
        section = self.provider.page.signature
        field = section.signed[0].removeprefix("{field:").removesuffix("}")
        given = self.body if body is None else body
        try:
            told = dict(parse_qsl(given.decode(), strict_parsing=True))[field].encode()
        except (ValueError, KeyError):
            told = base64.encodebytes(given)
        key = hashlib.sha1(self.secret if secret is None else secret).digest()  # noqa: S324 - as the provider makes it
        signature = f"{section.value}|{hmac.digest(key, told, section.algorithm).hex()}"
        form = urlencode({section.field: f"another|{'0' * 40}&{signature}", field: told})
        return Delivery(form.encode(), (("content-type", "application/x-www-form-urlencoded"),))

    def names(self) -> list[str]:
        """No header authenticates."""
        return []


def enveloped(items: str, answer: str) -> Callable[[Sequence[bytes]], bytes]:
    """Put things into a page of the list, where the pointer says that they are, without what answers wrap them in."""

    def page(things: Sequence[bytes]) -> bytes:
        body = b"[" + b",".join(unwrapped(thing, answer) for thing in things) + b"]"
        for name in reversed(items.split("/")[1:]):
            body = json.dumps(name).encode() + b":" + body
            body = b"{" + body + b"}"
        return body

    return page


def unwrapped(thing: bytes, answer: str) -> bytes:
    if not answer:
        return thing
    try:
        content = json.loads(thing)
    except (ValueError, RecursionError):
        return thing
    name = answer.removeprefix("/")
    return json.dumps(content[name]).encode() if isinstance(content, dict) and name in content else thing


def damaged(section: KindSection) -> tuple[bytes, str | None]:
    """Make a thing of which nothing but the id can be read, where the page says that these are."""
    content: dict[str, Any] = {}
    for where, value in ((section.id, "damaged"), (section.status, "paid"), (section.amount, "1e9999")):
        inner = content
        *names, last = (where if isinstance(where, str) else where[0]).split("/")[1:]
        for name in names:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return json.dumps(content).encode(), "damaged"


def case_of(kind: type[DeclaredProvider]) -> Case:
    """Return the case of a page: its samples are the documented bodies."""
    provider = kind.with_options()
    page = provider.page
    pushed = [body_of(kind, sample) for sample in page.sample if sample.by in _PUSHED]
    keyed = [body for body in pushed if provider.delivery_key(Delivery(body, ())) is not None] or pushed
    first = keyed[0]
    other = next(body for body in keyed if is_other(provider, body, first))
    answers = []
    for sample in page.sample:
        if sample.by in _SOURCES and {"id", "state"} <= sample.reads.keys():
            source = _SOURCES[sample.by]
            kind_name = sample.kind or page.provider.default_kind
            ref, status = str(sample.reads["id"]), str(sample.reads["state"])
            answers.append(Answered(kind=kind_name, ref=ref, status=status, body=body_of(kind, sample), source=source))
    section = page.signature
    return (FormCase if section.field else Case)(
        provider=provider,
        sign=signer(section),
        body=first,
        other_body=other,
        answers=tuple(answers),
        page=None
        if page.calls.list is None
        else enveloped(page.calls.list.items, page.kind[page.provider.default_kind].answer),
        has_empty_object=page.calls.list is not None and page.calls.list.absent_ends,
        lists_events=page.calls.list is not None and page.calls.list.of == "events",
        bodies=tuple(body_of(kind, sample) for sample in page.sample),
        has_delivery_id=provider.delivery_key(Delivery(first, ())) is not None,
        damaged=() if page.calls.list is None else (damaged(page.kind[page.provider.default_kind]),),
        signs_body=section.mode == "hmac",
        signs_time="{time}" in section.signed,
    )


def is_other(provider: DeclaredProvider, body: bytes, first: bytes) -> bool:
    keys = [provider.delivery_key(Delivery(each, ())) for each in (body, first)]
    return body != first and (keys[0] is None or keys[0] != keys[1])


def is_unsigned(name: str) -> bool:
    return PAGES[name].with_options().page.signature.mode == "none"


def is_promised(check, name: str) -> bool:
    """Whether the promise is one of such a page.

    Where nothing is signed, those of signatures are not; and no XML of a provider's tells the mode.
    """
    if is_unsigned(name) and check.__name__ in _OF_SIGNATURES:
        return False
    is_xml = PAGES[name].with_options().page.calls.format == "xml"
    return not (is_xml and check is check_the_mode_of_the_money_is_told)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        pytest.param(check, name, id=f"{check.__name__}-{name}")
        for check in CHECKS
        for name in PAGES
        if is_promised(check, name)
    ],
)
def test_contract(check, name):
    """The page's provider keeps the promise that the check's first line states."""
    check(case_of(PAGES[name]))


@pytest.mark.parametrize("name", [name for name in PAGES if is_unsigned(name)])
def test_what_is_not_signed_is_a_reason_to_ask_and_no_more(name):
    """A stranger's delivery states nothing, whatever it says."""
    provider = PAGES[name].with_options()
    assert {rule.means for rule in provider.page.events.rule} <= {"ask", "hint", "note"}
    assert provider.authentication is None


@pytest.mark.parametrize("name", PAGES)
def test_no_vector_and_no_sample_contradicts_the_page(name):
    """What others signed is accepted and what they wrote is read as a person reads it."""
    proof = prove(PAGES[name].with_options())
    assert proof.faults == ()
    assert proof.samples > 0


@pytest.mark.parametrize("name", PAGES)
def test_every_sample_of_a_delivery_is_verified_and_read(name):
    """A signed sample leads to a statement, a hint or a note, and none is parked."""
    provider, case = PAGES[name].with_options(), case_of(PAGES[name])
    for sample in provider.page.sample:
        if sample.by not in _PUSHED:
            continue
        delivery = case.delivery(secret=SECRET, body=body_of(PAGES[name], sample))
        assert provider.verify(delivery, case.ring(), case.window, NOW).key_id in ("present", "unsigned")
        reading = provider.parse(Statement(Source(sample.by), delivery.body, NOW))
        assert not reading.unreadable, sample.file
