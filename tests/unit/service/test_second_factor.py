"""Keys of second factors: what seals them, and what opens them after a rotation."""

from datetime import UTC, datetime

import pytest

from service.errors import FactorUnreadable
from service.second_factor import KeySealer, new_recovery_codes
from storage.tables_support import ConsoleFactor

OLD, NEW = b"the older token key 0001", b"the newer token key 0002"
AT = datetime(2026, 4, 1, tzinfo=UTC)


def factor(sealed, person="p1"):
    return ConsoleFactor(person_id=person, sealed_key=sealed, created_at=AT, recovery_digests=[])


def test_a_key_opens_with_every_secret_and_seals_with_the_first():
    old = factor(KeySealer([OLD]).seal("p1", "KEY"))
    assert KeySealer([NEW, OLD]).unseal(old) == "KEY"

    renewed = factor(KeySealer([NEW, OLD]).seal("p1", "KEY"))
    assert KeySealer([NEW]).unseal(renewed) == "KEY"
    with pytest.raises(FactorUnreadable):
        KeySealer([OLD]).unseal(renewed)


@pytest.mark.parametrize(
    "sealed", ["", "KEY", "gAAAAA==", KeySealer([OLD]).seal("p2", "KEY")], ids=["empty", "plain", "short", "of another"]
)
def test_what_was_not_sealed_for_the_person_does_not_open(sealed):
    with pytest.raises(FactorUnreadable):
        KeySealer([OLD]).unseal(factor(sealed))


def test_the_key_is_not_in_what_is_kept():
    assert "KEY" not in KeySealer([OLD]).seal("p1", "KEY" * 8).replace("-", "")


def test_recovery_codes_are_random_and_of_one_form():
    codes, digests = new_recovery_codes()
    more, _ = new_recovery_codes()
    assert len(set(codes) | set(more)) == len(codes) + len(more)
    assert len(digests) == len(codes)
    assert all(len(code.replace("-", "")) == 16 for code in codes)
