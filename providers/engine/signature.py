"""Signatures of deliveries, verified as a page describes them."""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha1, sha256
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from providers.contract import UNSIGNED, Delivery, Scheme, Verified
from providers.decoding import form_field
from providers.engine.page import SignatureSection
from providers.engine.pointers import InvalidPage, pattern
from providers.errors import DeliveryRejected
from providers.signing import Key, KeyRing, Window, iso_instant, unix_seconds

Verify = Callable[[Delivery, KeyRing, Window, datetime], Verified]
Part = Callable[[Delivery, bytes], bytes]

_DIGEST_BYTES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}

#: Standard Webhooks: the length of a signature by its version, of which v1 is HMAC-SHA256 and v1a is Ed25519.
_STANDARD_BYTES: Final = {"v1": 32, "v1a": 64}
_STANDARD_WORDS: Final = "HMAC-SHA256 or Ed25519 by Standard Webhooks, over the id, the time and the exact body"
_STANDARD_ID: Final = re.compile(r"[!-\-/-~]{1,200}")
_PUBLIC_KEY_BYTES: Final = 32

#: More signatures than one header has while keys are rotated.
_MAX_SIGNATURES: Final = 20


def compiled(section: SignatureSection) -> Verify:
    """Compile `[signature]` to a verifier; raises InvalidPage."""
    if section.mode == "none":
        return _unsigned
    if section.mode == "standard_webhooks":
        return _standard(section)
    if not section.header and not (section.field and section.mode == "hmac"):
        raise InvalidPage("a signature needs the header that it is in", ("signature", "header"))
    if section.mode == "token":
        return _token(section)
    return _hmac(section)


def described(section: SignatureSection) -> Scheme | None:
    """Return the scheme for people."""
    if section.mode == "none":
        return None
    if section.mode == "standard_webhooks":
        header, _, dated = standard_headers(section)
        return Scheme(section.words or _STANDARD_WORDS, header, dated)
    shows_secret = section.mode == "token"
    words = section.words or (
        "a shared secret, shown with each delivery" if shows_secret else f"HMAC by {section.algorithm.upper()}"
    )
    has_time = section.time or section.form == "time.signature"
    time_header = section.time_header or (section.header if has_time else None)
    return Scheme(words, section.header.lower(), time_header and time_header.lower(), shows_secret=shows_secret)


def key_form(section: SignatureSection, secret: bytes) -> str | None:
    """Return the form that a key must have, for people; None where it has it."""
    if section.mode == "standard_webhooks":
        return None if _standard_check(secret) is not None else "whsec_ or whpk_, and base64"
    if section.mode == "hmac" and not key_reader(section.key)(secret):
        kind, _, prefix = section.key.partition(":")
        return f"{prefix}, and {kind}" if prefix else kind
    return None


def signed_headers(section: SignatureSection) -> set[str]:
    """Return the headers that cannot be changed without a key, in lower case."""
    if section.mode == "standard_webhooks":
        return set(standard_headers(section))
    return {name.lower() for name in (section.header, section.time_header) if name}


def standard_headers(section: SignatureSection) -> tuple[str, str, str]:
    """Return the headers of signature, id and time of Standard Webhooks.

    Raises InvalidPage for a signature's header of another form.

    Some providers have another name before the hyphen, such as `svix-signature`.
    """
    header = (section.header or "webhook-signature").lower()
    name = header.removesuffix("-signature")
    if name == header or not name:
        raise InvalidPage("such a header ends with -signature", ("signature", "header"))
    return header, f"{name}-id", f"{name}-timestamp"


def _standard(section: SignatureSection) -> Verify:
    """Compile the scheme of Standard Webhooks; a key's form says what it verifies."""
    header, id_header, time_header = standard_headers(section)

    def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        given, message_id = delivery.header(header), delivery.header(id_header)
        if given is None or message_id is None:
            raise DeliveryRejected("signature_missing")
        stamp = delivery.header(time_header)
        if stamp is None:
            raise DeliveryRejected("timestamp_missing")
        stamped = unix_seconds(stamp)
        if _STANDARD_ID.fullmatch(message_id) is None:  # a full stop in it would move what is signed
            raise DeliveryRejected("signature_malformed")
        signatures = _standard_signatures(given)
        if not any(signatures.values()):
            raise DeliveryRejected("signature_malformed")
        message = f"{message_id}.{stamp}.".encode("ascii") + delivery.body
        key = _standard_key(keys, now, signatures, message)
        window.check(stamped, now)
        return Verified(key.id, stamped)

    return verify


def _standard_signatures(given: str) -> dict[str, list[bytes]]:
    """Return the signatures of both kinds; one that is malformed condemns no other."""
    found: dict[str, list[bytes]] = {}
    parts = [part.partition(",") for part in given.split()[:_MAX_SIGNATURES]]
    for version, size in _STANDARD_BYTES.items():
        texts = [text for told, _, text in parts if told == version]
        found[version] = list(_decoded(texts, "", "base64", size))
    return found


def _standard_key(keys: KeyRing, now: datetime, signatures: dict[str, list[bytes]], message: bytes) -> Key:
    """Return the active key with which one of the signatures was made."""
    found: Key | None = None
    is_tried = False
    for key in keys.keys:
        check = _standard_check(key.secret) if key.is_active(now) else None
        if check is None:
            continue
        is_tried = True
        if check(signatures, message) and found is None:
            found = key
    if found is None:
        raise DeliveryRejected("signature_wrong" if is_tried else "no_active_key")
    return found


@lru_cache(maxsize=100)
def _standard_check(secret: bytes) -> Callable[[dict[str, list[bytes]], bytes], bool] | None:
    """Return the check by a key, None for what is no key.

    `whpk_` is public, everything else is shared; a private key (`whsk_`) is the provider's alone.
    """
    if secret.startswith(b"whsk_"):
        return None
    if secret.startswith(b"whpk_"):
        raw = _read_public(secret)
        if raw is None or len(raw) != _PUBLIC_KEY_BYTES:
            return None
        public = Ed25519PublicKey.from_public_bytes(raw)
        return lambda signatures, message: any(_is_signed(public, each, message) for each in signatures["v1a"])
    shared = _read_shared(secret)
    if not shared:
        return None

    def is_right(signatures: dict[str, list[bytes]], message: bytes) -> bool:
        keyed = _keyed(shared, "sha256").copy()
        keyed.update(message)
        expected = keyed.digest()
        return any(hmac.compare_digest(expected, each) for each in signatures["v1"])

    return is_right


def _is_signed(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _unsigned(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
    return Verified(UNSIGNED)


def _token(section: SignatureSection) -> Verify:
    header, prefix = section.header.lower(), section.prefix

    def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        given = delivery.header(header)
        if given is None:
            raise DeliveryRejected("signature_missing")
        if not given.startswith(prefix) or len(given) == len(prefix):
            raise DeliveryRejected("signature_malformed")
        try:
            token = given.removeprefix(prefix).encode("latin-1")
        except UnicodeEncodeError:
            raise DeliveryRejected("signature_malformed") from None
        # Digests have one length, so the time of a comparison tells nothing of the secret's.
        digest, active = sha256(token).digest(), list(keys.active(now))
        if not active:
            raise DeliveryRejected("no_active_key")
        matching = [key for key in active if hmac.compare_digest(sha256(key.secret).digest(), digest)]
        if not matching:
            raise DeliveryRejected("signature_wrong")
        return Verified(matching[0].id)

    return verify


def _hmac(section: SignatureSection) -> Verify:
    header, time_header, field = section.header.lower(), section.time_header.lower(), section.field
    read_time = _TIMES[section.time_format]
    message = _message(section.signed)
    secret_of, algorithm = key_reader(section.key), section.algorithm
    size, encoding, prefix = _DIGEST_BYTES[algorithm], section.encoding, section.prefix
    split = _splitter(section)
    if not section.separator:
        raise InvalidPage("pairs are separated by something", ("signature", "separator"))
    is_timed = bool(section.time or time_header or section.form == "time.signature")
    if not is_timed and "{time}" in section.signed:
        raise InvalidPage("{time} is signed, and nothing says where the time is", ("signature", "signed"))
    if is_timed and "{time}" not in section.signed:
        raise InvalidPage("the time is not signed, so it proves nothing", ("signature", "signed"))

    def verify(delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        given = form_field(delivery.body, field) if field else delivery.header(header)
        if given is None:
            raise DeliveryRejected("signature_missing")
        stamp: str | None = None
        if time_header:
            stamp = delivery.header(time_header)
            if stamp is None:
                raise DeliveryRejected("timestamp_missing")
        elif is_timed:
            stamp, given = split(given)
        stamped = None if stamp is None else read_time(stamp)  # only ASCII comes through
        signatures = list(_decoded(_candidates(section, given), prefix, encoding, size))
        if not signatures:
            raise DeliveryRejected("signature_malformed")
        signed = message(delivery, b"" if stamp is None else stamp.encode("ascii"))
        key = _matching(keys, now, signatures, signed, secret_of, algorithm)
        if stamped is None:
            return Verified(key.id)
        window.check(stamped, now)
        return Verified(key.id, stamped)

    return verify


def _matching(
    keys: KeyRing,
    now: datetime,
    signatures: list[bytes],
    message: bytes,
    secret_of: Callable[[bytes], bytes | None],
    algorithm: str,
) -> Key:
    """Return the active key with which one of the signatures was made.

    Each is compared in constant time.
    """
    found: Key | None = None
    is_tried = False
    for key in keys.keys:
        secret = secret_of(key.secret) if key.is_active(now) else None
        if secret is None:
            continue
        is_tried = True
        keyed = _keyed(secret, algorithm).copy()
        keyed.update(message)
        expected = keyed.digest()
        for signature in signatures:
            if hmac.compare_digest(expected, signature) and found is None:
                found = key
    if found is None:
        raise DeliveryRejected("signature_wrong" if is_tried else "no_active_key")
    return found


def challenges(section: SignatureSection) -> Callable[[Mapping[str, str], KeyRing, datetime], str | None]:
    """Compile the answer to the provider's question; None for any other query."""
    challenge = section.challenge
    if challenge is None:
        return lambda query, keys, now: None
    fits, secret_of = pattern(challenge.pattern).fullmatch, key_reader(section.key)
    if "{signature}" not in challenge.answer:
        raise InvalidPage("the answer to a challenge has the {signature} in it", ("signature", "challenge", "answer"))

    def answer(query: Mapping[str, str], keys: KeyRing, now: datetime) -> str | None:
        asked, key = query.get(challenge.query), next(keys.active(now), None)
        secret = None if key is None else secret_of(key.secret)
        if asked is None or fits(asked) is None or secret is None:
            return None
        signature = hmac.digest(secret, asked.encode(), section.algorithm).hex()
        return challenge.answer.replace("{signature}", signature)

    return answer


@lru_cache(maxsize=1_000)
def _keyed(secret: bytes, algorithm: str) -> hmac.HMAC:
    """Return an HMAC that has taken its key: half of the work for a short message."""
    return hmac.new(secret, digestmod=algorithm)


def key_reader(form: str) -> Callable[[bytes], bytes | None]:
    """Return the function from a configured key to its bytes, None for no such key.

    The form is `text`, `hex` or `base64`, with a prefix to leave out after a colon. Raises InvalidPage.
    """
    kind, _, prefix = form.partition(":")
    if kind not in ("text", "hex", "base64", "sha1"):
        raise InvalidPage(f"{form!r} is no form of a key: text, hex, base64 or sha1", ("signature", "key"))
    if form == "text":
        return lambda secret: secret

    @lru_cache(maxsize=100)
    def read(secret: bytes) -> bytes | None:
        text = secret.removeprefix(prefix.encode())
        try:
            if kind == "sha1":
                return sha1(text, usedforsecurity=False).digest()  # the provider's way to a key, as it is
            if kind == "hex":
                return bytes.fromhex(text.decode("ascii"))
            return text if kind == "text" else base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except (ValueError, binascii.Error):
            return None

    return read


def _splitter(section: SignatureSection) -> Callable[[str], tuple[str, str]]:
    if section.form == "time.signature":
        return _dotted
    name = section.time

    def paired(given: str) -> tuple[str, str]:
        # two headers of one name may have been joined by a comma
        times = [value for label, value in _pairs(given.replace(";", ","), ",") if label == name]
        if not times:
            raise DeliveryRejected("timestamp_missing")
        if len(times) > 1:
            raise DeliveryRejected("signature_malformed")  # which of them is signed would be a guess
        return times[0], given

    return paired


def _dotted(given: str) -> tuple[str, str]:
    stamp, stop, signature = given.partition(".")
    if not stop:
        raise DeliveryRejected("signature_malformed")
    return stamp, signature


def _pairs(given: str, separator: str) -> Iterator[tuple[str, str]]:
    """Read `a=1,b=2`; what is no pair is passed over."""
    for part in given.split(separator):
        label, equals, value = part.strip().partition("=")
        if equals:
            yield label, value


def _candidates(section: SignatureSection, given: str) -> list[str]:
    if section.form == "pairs":
        found = [value for label, value in _pairs(given, section.separator) if label == section.value]
    elif section.form == "keyed":
        marked = (part.partition("|") for part in given.split(section.separator))
        found = [value for key, bar, value in marked if bar and section.value in ("", key)]
    elif section.form == "list":
        pairs = (part.partition(",") for part in given.split())
        found = [value for version, _, value in pairs if version == section.value]
    else:
        found = [given]
    return found[:_MAX_SIGNATURES]


def _decoded(texts: list[str], prefix: str, encoding: Literal["hex", "base64"], size: int) -> Iterator[bytes]:
    """Decode signatures; one that is malformed condemns no other."""
    for text in texts:
        if not text.startswith(prefix):
            continue
        told = text.removeprefix(prefix)
        try:
            raw = bytes.fromhex(told) if encoding == "hex" else base64.b64decode(told.encode("ascii"), validate=True)
        except (ValueError, binascii.Error):
            continue
        # bytes.fromhex skips white space, which is not part of a signature
        if len(raw) == size and (encoding != "hex" or len(told) == 2 * size):
            yield raw


def _message(parts: list[str]) -> Part:
    """Compile what is signed."""
    if not any(part == "{body}" or part.startswith("{field:") for part in parts):
        raise InvalidPage("the body is not signed, so that anything could be in it", ("signature", "signed"))
    steps: list[Part] = [_part(part) for part in parts]
    if parts == ["{body}"]:
        return lambda delivery, stamp: delivery.body
    return lambda delivery, stamp: b"".join([step(delivery, stamp) for step in steps])


def _part(part: str) -> Part:
    if part == "{body}":
        return lambda delivery, stamp: delivery.body
    if part == "{time}":
        return lambda delivery, stamp: stamp
    if part.startswith("{header:"):
        name = part[len("{header:") : -1].lower()
        return lambda delivery, stamp: (delivery.header(name) or "").encode("latin-1", "replace")
    if part.startswith("{field:"):
        field = part[len("{field:") : -1]
        return lambda delivery, stamp: (form_field(delivery.body, field) or "").encode()
    if part.startswith("{") and not part.startswith("{options."):
        raise InvalidPage(f"{part} cannot be signed: body, time, header:name or field:name", ("signature", "signed"))
    literal = part.encode()
    return lambda delivery, stamp: literal


def _any_time(stamp: str) -> datetime:
    return unix_seconds(stamp) if stamp.isdigit() else iso_instant(stamp)


def _unix_ms(stamp: str) -> datetime:
    if not (stamp.isascii() and stamp.isdigit()) or len(stamp) > 15:
        raise DeliveryRejected("timestamp_malformed")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(stamp))


_TIMES: Final[dict[str, Callable[[str], datetime]]] = {
    "unix": unix_seconds,
    "unix_ms": _unix_ms,
    "iso": iso_instant,
    "any": _any_time,
}


_read_public: Final = key_reader("base64:whpk_")
_read_shared: Final = key_reader("base64:whsec_")
