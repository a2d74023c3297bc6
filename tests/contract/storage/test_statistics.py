"""The counts that people are shown."""

from storage import counts as storage_counts
from storage import inbox
from tests.support.builders import a_message


def test_what_we_said_twice_is_no_redelivery(database):
    """Webhooks and callbacks are redelivered; a merchant who repeats a wish has had nothing delivered."""
    with database.write() as unit:
        for source in ("webhook", "callback", "merchant"):
            for _ in range(3):
                inbox.record(unit, [a_message(source=source, delivery_key=f"{source}:1")])

    with database.read() as unit:
        counts = storage_counts.by_account(unit)["acme"]
    assert counts.sources == {"webhook": 1, "callback": 1, "merchant": 1}
    assert counts.redeliveries == 4
