"""Handler of a sink that sends nothing: `handler = "api.feed_only:keep"`.

It is for a shop that reads the feed of events and needs no other sink.
"""


def keep(_fulfilment: object) -> None:
    """Send nothing: the effect is in the feed, and counts as delivered."""
