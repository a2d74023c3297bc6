"""A sink for whoever reads the feed and needs no other: `handler = "api.feed_only:keep"`."""


def keep(_fulfilment: object) -> None:
    """Nothing is sent anywhere: the effect is in the feed, and counts as delivered."""
