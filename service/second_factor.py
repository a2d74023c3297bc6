"""Second factor of console users: codes by time (TOTP), and recovery codes.

A code is taken once (RFC 6238); the key is sealed (Fernet), and of recovery codes digests are kept.
"""

import base64
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pyotp import TOTP, random_base32

from service.errors import FactorExists, FactorMissing, FactorUnreadable, WrongCode
from storage import console_factors
from storage.database import Unit
from storage.tables_support import ConsoleFactor

RECOVERY_CODES: Final = 10
#: Steps of 30 seconds by which a telephone's clock may be wrong. Source: RFC 6238, section 5.2.
_DRIFT_STEPS: Final = 1
_RECOVERY_CHARS: Final = 16  #: of 32 letters and digits: 80 random bits, so that a plain digest hides them
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_ISSUER: Final = "Receipted"
_SALT: Final = b"receipted.second-factor"


class UsedCode(Enum):
    """A code by which a person proved the second factor."""

    TIME = "time"
    RECOVERY = "recovery"


class Enrolment(NamedTuple):
    """A new key, which is shown once."""

    key: str  #: Base32, in groups of four, to be typed
    uri: str  #: otpauth://, to be opened on the telephone


class KeySealer:
    """Seals keys of second factors: the first secret seals, all open."""

    def __init__(self, token_secrets: Sequence[bytes]) -> None:
        derived = [hmac.digest(secret, _SALT, "sha256") for secret in token_secrets]
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])

    def seal(self, person_id: str, key: str) -> str:
        """Seal the key for that person alone."""
        return self._fernet.encrypt(f"{person_id} {key}".encode()).decode("ascii")

    def unseal(self, factor: ConsoleFactor) -> str:
        """Return the key; raises FactorUnreadable.

        That is for one that was not sealed here, or not for the person.
        """
        try:
            owner, _, key = self._fernet.decrypt(factor.sealed_key.encode()).decode().partition(" ")
        except InvalidToken:
            raise FactorUnreadable from None
        if owner != factor.person_id:
            raise FactorUnreadable
        return key


def is_asked(factor: ConsoleFactor | None) -> bool:
    """Tell whether a code is asked for at log-in."""
    return factor is not None and factor.confirmed_at is not None


def enrol(unit: Unit, sealer: KeySealer, person_id: str, name: str, now: datetime) -> Enrolment:
    """Begin a second factor, to be confirmed; raises FactorExists."""
    kept = console_factors.of_person(unit, person_id, is_locked=True)
    if kept is not None and kept.confirmed_at is not None:
        raise FactorExists
    key = random_base32()
    sealed = sealer.seal(person_id, key)
    console_factors.begin(
        unit, ConsoleFactor(person_id=person_id, sealed_key=sealed, created_at=now, recovery_digests=[])
    )
    uri = TOTP(key).provisioning_uri(name=name, issuer_name=_ISSUER)
    return Enrolment(" ".join(key[at : at + 4] for at in range(0, len(key), 4)), uri)


def confirm(unit: Unit, sealer: KeySealer, person_id: str, code: str, now: datetime) -> list[str]:
    """Confirm the second factor by a code; return its recovery codes.

    The codes are kept nowhere. Raises WrongCode, FactorMissing, FactorExists.
    """
    factor = console_factors.of_person(unit, person_id, is_locked=True)
    if factor is None:
        raise FactorMissing
    if factor.confirmed_at is not None:
        raise FactorExists
    step = _matching_step(sealer.unseal(factor), _plain(code), now, after=factor.last_step)
    codes, digests = new_recovery_codes()
    console_factors.confirm(unit, person_id, step, digests, now)
    return codes


def accept_code(unit: Unit, sealer: KeySealer, person_id: str, code: str, now: datetime) -> UsedCode:
    """Take a code of the person, once; raises WrongCode or FactorMissing.

    A code of the time is of the present step or a neighbour, and newer than the last that was taken. The key is sealed
    anew with the first secret, so that others can be removed after a while.
    """
    factor = console_factors.of_person(unit, person_id, is_locked=True)
    if factor is None or factor.confirmed_at is None:
        raise FactorMissing
    given = _plain(code)
    if len(given) == _RECOVERY_CHARS:
        digest = _digest(given)
        if digest not in factor.recovery_digests:
            raise WrongCode
        console_factors.keep_recovery(unit, person_id, [each for each in factor.recovery_digests if each != digest])
        return UsedCode.RECOVERY
    key = sealer.unseal(factor)
    step = _matching_step(key, given, now, after=factor.last_step)
    console_factors.use_step(unit, person_id, step, sealer.seal(person_id, key))
    return UsedCode.TIME


def renew_recovery(unit: Unit, person_id: str) -> list[str]:
    """Replace the recovery codes and return the new ones, which are kept nowhere."""
    codes, digests = new_recovery_codes()
    console_factors.keep_recovery(unit, person_id, digests)
    return codes


def new_recovery_codes() -> tuple[list[str], list[str]]:
    """Generate recovery codes, in groups of four, and their digests."""
    found = ["".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_CHARS)) for _ in range(RECOVERY_CODES)]
    return ["-".join(code[at : at + 4] for at in range(0, len(code), 4)) for code in found], [
        _digest(code) for code in found
    ]


def _matching_step(key: str, given: str, now: datetime, *, after: int) -> int:
    """Return the step of the code, compared in constant time; raises WrongCode."""
    totp = TOTP(key)
    present = totp.timecode(now)
    steps = range(present - _DRIFT_STEPS, present + _DRIFT_STEPS + 1)
    fits = [step for step in steps if hmac.compare_digest(totp.generate_otp(step).encode(), given.encode())]
    newer = [step for step in fits if step > after]
    if not newer:
        raise WrongCode
    return newer[0]


def _plain(code: str) -> str:
    return "".join(letter for letter in code.lower() if letter.isascii() and letter.isalnum())


def _digest(code: str) -> str:
    return sha256(code.encode()).hexdigest()
