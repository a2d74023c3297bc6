"""The sink behind the API's feed: what no other sink is told is owed to it, so that the feed has every effect."""

from collections.abc import Mapping
from typing import Final

from providers.contract import Provider
from receipted.settings_fulfilment import SinkSettings
from receipted.settings_sections import Settings
from receipted.settings_told import FEED, effects_of

_HANDLER: Final = "api.feed_only:keep"


def with_feed(settings: Settings, providers: Mapping[str, type[Provider]]) -> Settings:
    """The settings, with one more sink where the API is on and the sinks that there are leave effects out."""
    takes = [sink.takes() for sink in settings.sinks]
    left = tuple(effect for effect in effects_of(providers) if not any(takes_it(effect) for takes_it in takes))
    if not left or not settings.api.enabled:
        return settings
    feed = SinkSettings(name=FEED, kind="python", handler=_HANDLER, effects=left)
    return settings.model_copy(update={"sinks": (*settings.sinks, feed)})
