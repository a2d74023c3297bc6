import asyncio
import threading

import pytest

from service.errors import Busy, UnusablePassword
from service.passwords import (
    DEFAULT_COST,
    UNMATCHABLE_HASH,
    PasswordThreads,
    ScryptCost,
    check_strength,
    generate_password,
    hash_password,
    matches_hash,
    needs_rehash,
)
from tests.support.waiting import DEADLINE_S

CHEAP = ScryptCost(4, 8, 1)

#: RFC 7914, section 12: scrypt("password", "NaCl", N=1024, r=8, p=16), its first 32 bytes.
VECTOR = "scrypt$10$8$16$TmFDbA==$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI="


def test_what_is_kept_is_scrypt_as_the_rfc_has_it():
    assert matches_hash("password", VECTOR)
    assert not matches_hash("Password", VECTOR)


def test_the_same_password_is_kept_differently_each_time():
    one, other = hash_password("a password", CHEAP), hash_password("a password", CHEAP)

    assert one != other
    assert matches_hash("a password", one)
    assert matches_hash("a password", other)


@pytest.mark.parametrize("password", ["", "a passwore", "a password ", "A password", "a\u00a0password", "x" * 5000])
def test_another_password_is_none(password):
    assert not matches_hash(password, hash_password("a password", CHEAP))


def test_a_password_may_have_any_letters():
    assert matches_hash("pässwörd 密码 🔑", hash_password("pässwörd 密码 🔑", CHEAP))


def test_the_usual_cost_is_what_is_recommended_and_anything_else_is_made_anew():
    kept = hash_password("a password")

    assert DEFAULT_COST.log_n == 15
    assert (128 * DEFAULT_COST.r << DEFAULT_COST.log_n, DEFAULT_COST.p) == (32 * 2**20, 3)
    assert not needs_rehash(kept)
    assert needs_rehash(hash_password("a password", CHEAP))


def test_nobodys_password_costs_the_same_and_is_none():
    assert not needs_rehash(UNMATCHABLE_HASH)
    assert not matches_hash("", UNMATCHABLE_HASH)


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("elevenchars", "at least 12"),
        ("x" * 257, "at most"),
        ("lovelace-2026", "hardly more than the name"),
        ("LoveLace....!", "hardly more than the name"),
        ("abababababab", "too few different"),
    ],
)
def test_a_password_that_is_guessed_is_refused(password, words):
    with pytest.raises(UnusablePassword, match=words):
        check_strength(password, "lovelace")


@pytest.mark.parametrize("password", ["twelve chars", "correct horse battery", "my lovelace is a long sentence"])
def test_a_good_password_is_taken(password):
    check_strength(password, "lovelace")


def test_a_password_that_is_made_may_be_used_and_is_made_once():
    found = {generate_password() for _ in range(100)}

    assert len(found) == 100
    for password in found:
        check_strength(password, "lovelace")


def test_passwords_are_checked_beside_the_event_loop_and_a_few_at_once():
    started, go_on = threading.Semaphore(0), threading.Event()

    def slow():
        started.release()
        assert go_on.wait(DEADLINE_S)
        return threading.current_thread()

    async def run():
        turns = PasswordThreads()
        waiting = [asyncio.create_task(turns.do(slow)) for _ in range(16)]
        await asyncio.sleep(0)  # each begins
        with pytest.raises(Busy):
            await turns.do(slow)
        go_on.set()
        threads = set(await asyncio.gather(*waiting))
        assert await turns.do(lambda: 7) == 7  # there is room again
        return threads

    threads = asyncio.run(run())
    assert threading.main_thread() not in threads
    assert len(threads) <= 2
