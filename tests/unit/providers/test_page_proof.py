"""A page that is wrong in one way is refused, or its vectors and samples contradict it, or it is not proved."""

import hmac
from datetime import UTC, datetime
from pathlib import Path

import pytest

from providers.catalogue import PROVIDERS, AlternativePayments, StableGenius
from providers.contract import Delivery
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.proof import prove
from providers.engine.provider import DeclaredProvider, declared
from providers.signing import Key, KeyRing, Window

RIGHT = StableGenius.source


def proof_of(text: str):
    return prove(declared(page.parse(text, "provider.toml", RIGHT.folder)).with_options())


def changed(was: str, now: str) -> str:
    assert RIGHT.text.count(was) >= 1, was
    return RIGHT.text.replace(was, now, 1)


def without_sample(file: str) -> str:
    head, *samples = RIGHT.text.split("[[sample]]")
    return "[[sample]]".join([head, *(sample for sample in samples if file not in sample)])


SETTLEMENT = 'as = "hint"\nwhen = { "/type" = ["settlement.completed", "settlement.failed"] }'

#: Each wrong in one way that hands out goods, or loses payments, or lets anybody in.
WRONG = {
    "amounts times 100": changed('unit = "major"', 'unit = "minor"'),
    "awaiting payment is paid": changed('awaiting_payment = "open"', 'awaiting_payment = "paid"'),
    "the time is not signed": changed('signed = ["{time}", ".", "{body}"]', 'signed = ["{body}"]'),
    "wrong header of the signature": changed('header = "X-StableGenius-Signature"', 'header = "X-Signature"'),
    "wrong pointer of the amount": changed('amount = "/amount"', 'amount = "/net_amount"'),
    "the body is not signed": changed('signed = ["{time}", ".", "{body}"]', 'signed = ["{time}", "."]'),
    "nothing between time and body": changed('signed = ["{time}", ".", "{body}"]', 'signed = ["{time}", "{body}"]'),
    "wrong header of the time": changed('time_header = "X-StableGenius-Timestamp"', 'time_header = "X-Timestamp"'),
    "another encoding": changed('prefix = "sha256="', 'prefix = "sha256="\nencoding = "base64"'),
    "another algorithm": changed('prefix = "sha256="', 'prefix = "sha256="\nalgorithm = "sha512"'),
    "no prefix": changed('prefix = "sha256="', 'prefix = "v1="'),
    "keys in hexadecimal": changed('prefix = "sha256="', 'prefix = "sha256="\nkey = "hex"'),
    "anybody is believed": changed('mode = "hmac"', 'mode = "token"'),
    "wrong pointer of the status": changed('status = "/status"', 'status = "/state"'),
    "wrong pointer of the id": changed('id = "/id"\nstatus', 'id = "/merchant_id"\nstatus'),
    "wrong pointer of the currency": changed('currency = "/currency"', 'currency = "/token"'),
    "wrong pointer of the reference": changed("/metadata/{options.reference_key}", "/metadata/table"),
    "confirmed is on its way": changed('confirmed = "paid"', 'confirmed = "processing"'),
    "expired is paid": changed('expired = "expired!"', 'expired = "paid!"'),
    "cancelled has failed": changed('cancelled = "cancelled!"', 'cancelled = "failed!"'),
    "events are in no object": changed('object = "/data"\nkind', 'object = ""\nkind'),
    "events of another name": changed(r"~payment_intent\..*", r"~intent\..*"),
    "a settlement says what it settles": changed(SETTLEMENT, SETTLEMENT.replace("hint", "state")),
    "no vector": RIGHT.text[: RIGHT.text.index("[[vector]]")] + RIGHT.text[RIGHT.text.index("[[sample]]") :],
    "no sample of what is settled": without_sample("samples/intent_settled.json"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_page_that_is_wrong_in_one_way_is_not_proved(wrong):
    try:
        proof = proof_of(WRONG[wrong])
    except InvalidPage:
        return
    assert not proof.is_proved, "nothing noticed"


def test_the_right_page_is_proved_and_says_what_is_not():
    proof = proof_of(RIGHT.text)
    assert (proof.is_proved, proof.faults, proof.unproved) == (True, (), ())
    assert prove(AlternativePayments.with_options()).unproved == (
        "no sample shows a payment_request that is cancelled",
    )


def test_a_fault_names_the_sample_and_both_values():
    (fault, *_) = proof_of(WRONG["expired is paid"]).faults
    assert fault == "sample samples/event_expired.json: phase is 'expired', and the page reads 'paid'"
    (fault,) = proof_of(changed("amount_minor = 1200", "amount_minor = 12")).faults
    assert fault == "sample samples/event_expired.json: amount_minor is 12, and the page reads 1200"


def test_a_sample_without_its_file_is_a_fault():
    proof = proof_of(changed("samples/event_expired.json", "samples/gone.json"))
    assert proof.faults == ("sample samples/gone.json: FileNotFoundError",)


FAULTS = {
    "unknown key": ('prefix = "sha256="', 'prefxi = "sha256="', "unknown key 'prefxi'; did you mean 'prefix'?"),
    "unknown section": ("[money]", "[mony]\nx = 1\n[money]", "unknown key 'mony'; did you mean 'money'?"),
    "unknown phase": ('settled = "settled!"', 'settled = "setled!"', "'setled' is no phase"),
    "a move from nowhere": ('confirmed = ["settled"]', 'confimed = ["settled"]', "'confimed' is no state"),
    "a pointer that cannot be": ('status = "/status"', 'status = "status"', "'status' is no JSON pointer"),
    "an option that is not there": ("{options.ttl}", "{options.tll}", "no option is named 'tll'; did you mean 'ttl'?"),
    "a pattern that cannot be": ('pattern = "evt_.+"', 'pattern = "evt_(.+"', "is no regular expression"),
    "a value of another type": ("attempts = 4", 'attempts = "4"', "Expected `int`, got `str`"),
    "an unknown kind": ('kind = "payment_intent"', 'kind = "intent"', "'intent' is no kind of this page"),
    "no default kind": (
        'default_kind = "payment_intent"',
        'default_kind = "intent"',
        "'intent' is no kind of this page",
    ),
    "no TOML": ("[money]", "[money", "provider.toml: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_page_is_told_with_its_line(fault):
    was, now, words = FAULTS[fault]
    text = changed(was, now)
    with pytest.raises(InvalidPage) as refused:
        proof_of(text)
    assert words in refused.value.message
    if fault != "no TOML":
        name, line, _ = refused.value.message.split(":", 2)
        wrong = now.partition("\n")[0]
        assert name == "provider.toml"
        lines = text.splitlines()
        assert wrong in lines[int(line) - 1] or fault in ("unknown phase", "a move from nowhere"), lines[int(line) - 1]


def test_a_malformed_signature_condemns_no_other():
    pairs = changed(
        'header = "X-StableGenius-Signature"\nprefix = "sha256="\ntime_header = "X-StableGenius-Timestamp"',
        'header = "X-Sig"\nform = "pairs"\nvalue = "v1"\ntime = "t"',
    )
    provider = declared(page.parse(pairs[: pairs.index("[[vector]]")], "provider.toml", Path())).with_options()
    right = hmac.digest(b"key", b"1711929612.{}", "sha256").hex()
    delivery = Delivery(b"{}", (("x-sig", f"t=1711929612,v1=zz,v0={'0' * 64},v1={right}"),))
    at = datetime.fromtimestamp(1711929612, UTC)
    assert provider.verify(delivery, KeyRing((Key("k", b"key"),)), Window(), at).key_id == "k"


#: Of every page: what is replaced, and by what; each hands out goods, or loses payments, or lets anybody in.
SPOILT = {
    "amounts times 100": ('unit = "minor"', 'unit = "major"'),
    "amounts by 100": ('unit = "major"', 'unit = "minor"'),
    "what is paid is open": (' = "paid!"', ' = "failed!"'),
    "what is cancelled is paid": (' = "cancelled!"', ' = "paid!"'),
    "another header": ('\nheader = "', '\nheader = "X-'),
    "the body alone is signed": ('signed = ["{time}", ', "signed = ["),
    "the URL is not signed": ('signed = ["{options.notification_url}", ', "signed = ["),
    "another name of the signature": ('\nvalue = "', '\nvalue = "x'),
    "another encoding": ('encoding = "base64"', 'encoding = "hex"'),
    "another pointer of the id": ('\nid = "/id"\nstatus', '\nid = "/no"\nstatus'),
    "another pointer of the status": ('\nstatus = "/status"\namount', '\nstatus = "/xstatus"\namount'),
    "another pointer of the amount": ('\namount = "/', '\namount = "/x'),
    "another pointer of the reference": ('\nreference = "/', '\nreference = "/x'),
    "a refund is no refund": ('kind = "refund"', 'kind = "dispute"'),
    "what is refunded is not": ('= "done"', '= "undone"'),
    "a dispute that is lost is won": ('lost = "done"', 'lost = "undone"'),
}
PAGES = {
    name: kind.source
    for name, kind in PROVIDERS.items()
    if issubclass(kind, DeclaredProvider)
    and prove(kind.with_options()).is_proved
    and kind.with_options().page.signature.mode != "token"  # of which no vector can be wrong in one way
}


@pytest.mark.parametrize("name", PAGES)
def test_no_spoilt_page_is_proved(name):
    """Every one of these changes that fits on the page is noticed."""
    source, missed, tried = PAGES[name], [], 0
    for wrong, (was, now) in SPOILT.items():
        for place in range(source.text.count(was)):
            parts = source.text.split(was)
            text = was.join(parts[: place + 1]) + now + was.join(parts[place + 1 :])
            tried += 1
            try:
                proof = prove(declared(page.parse(text, "provider.toml", source.folder)).with_options())
            except InvalidPage:
                continue
            if proof.is_proved:
                missed.append(f"{wrong}, place {place + 1}")
    assert tried >= 5
    assert missed == []
