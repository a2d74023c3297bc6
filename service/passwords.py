"""Passwords: hashed by scrypt (RFC 7914), checked in constant time, a few at once.

An unknown name is checked against a hash that no password matches, so that it takes as long as a known one.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from service.errors import Busy, UnusablePassword

Result = TypeVar("Result")

MIN_PASSWORD_CHARS: Final = 12
MAX_PASSWORD_CHARS: Final = 256  #: a bound on the work of one check

#: Hashes and checks that may wait in one process; more are refused with Busy.
_MAX_WAITING: Final = 16

_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """Cost of one guess: 2**log_n blocks of r, p times over.

    It takes 128 * r * 2**log_n bytes of memory.
    """

    log_n: int
    r: int
    p: int


#: 32 MiB and three passes, one of the settings that OWASP's Password Storage Cheat Sheet calls equal.
DEFAULT_COST: Final = ScryptCost(15, 8, 3)


def hash_password(password: str, cost: ScryptCost = DEFAULT_COST) -> str:
    """Hash a password with a new salt; the text has the cost, the salt and the key."""
    salt = secrets.token_bytes(_SALT_BYTES)
    key = _scrypt(salt, cost).derive(password.encode())
    return f"scrypt${cost.log_n}${cost.r}${cost.p}${_text(salt)}${_text(key)}"


def matches_hash(password: str, kept: str) -> bool:
    """Compare a password with a hash, in constant time for hashes of the same cost."""
    cost, salt, key = _read(kept)
    try:
        _scrypt(salt, cost).verify(password.encode(), key)
    except InvalidKey:
        return False
    return True


def needs_rehash(kept: str, cost: ScryptCost = DEFAULT_COST) -> bool:
    """Return True for a hash of another cost than the present one."""
    return _read(kept)[0] != cost


#: A hash that no password matches.
UNMATCHABLE_HASH: Final = f"scrypt${DEFAULT_COST.log_n}${DEFAULT_COST.r}${DEFAULT_COST.p}${'A' * 22}==${'A' * 43}="


def check_strength(password: str, name: str) -> None:
    """Check a new password; raises UnusablePassword, which says what is missing."""
    if len(password) < MIN_PASSWORD_CHARS:
        raise UnusablePassword(f"a password has at least {MIN_PASSWORD_CHARS} characters; four random words will do")
    if len(password) > MAX_PASSWORD_CHARS:
        raise UnusablePassword(f"a password has at most {MAX_PASSWORD_CHARS} characters")
    if name and name.lower() in password.lower() and len(password) < MIN_PASSWORD_CHARS + len(name):
        raise UnusablePassword("the password is hardly more than the name; use one that nobody guesses")
    if len(set(password)) < 5:
        raise UnusablePassword("the password has too few different characters")


def generate_password() -> str:
    """Generate a password to be typed once: about 100 random bits in groups of five."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


class PasswordThreads:
    """Hashes and checks passwords in two threads of their own."""

    def __init__(self, threads: Executor | None = None) -> None:
        self._threads = threads or ThreadPoolExecutor(2, "console-password")
        self._waiting = 0

    async def do(self, hash_or_check: Callable[[], Result]) -> Result:
        """Run it in a thread; raises Busy where too many wait already."""
        if self._waiting >= _MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, hash_or_check)
        finally:
            self._waiting -= 1


def _scrypt(salt: bytes, cost: ScryptCost) -> Scrypt:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=2**cost.log_n, r=cost.r, p=cost.p)


def _read(kept: str) -> tuple[ScryptCost, bytes, bytes]:
    _, log_n, r, p, salt, key = kept.split("$")
    return ScryptCost(int(log_n), int(r), int(p)), base64.b64decode(salt), base64.b64decode(key)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
