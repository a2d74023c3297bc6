"""What is wrong with which sink is told what."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fulfilment.takes import unknown
from providers.contract import Provider
from receipted.errors import Fault
from receipted.settings_fulfilment import SinkSettings
from receipted.settings_shape import did_you_mean
from statemachine.phases import Alarm, Effect

#: The sink that takes what no other does, for the API's feed.
FEED: Final = "api-feed"


def effects_of(providers: Mapping[str, type[Provider]]) -> tuple[str, ...]:
    """Every effect that there is, by name: of money that comes in, of what else the providers have, and of accounts."""
    lifecycles = [lifecycle for provider in providers.values() for lifecycle in provider.lifecycles.values()]
    names = {lifecycle.effect_name(effect) for lifecycle in lifecycles for effect in Effect}
    return tuple(sorted({*names, *(effect.value for effect in Effect), *(alarm.effect for alarm in Alarm)}))


def told(sinks: Sequence[SinkSettings], providers: Mapping[str, type[Provider]]) -> Iterator[Fault]:
    """Effects that do not exist, and that nobody would learn of a payment."""
    known = effects_of(providers)
    for at, sink in enumerate(sinks):
        if sink.name == FEED:
            yield Fault(f"sinks.{at}.name", "is what the API's feed is called", "give the sink another name")
        if sink.effects is None:
            continue
        if not sink.effects:
            yield Fault(f"sinks.{at}.effects", "is empty: the sink would be told nothing", "name effects, or remove it")
        for wrong in unknown(sink.effects, known):
            yield Fault(f"sinks.{at}.effects", f"has {wrong!r}, which is no effect", did_you_mean(wrong, known))
    if sinks and not any(sink.takes()(Effect.PAID) for sink in sinks):
        remedy = f"add a sink for the shop, or {Effect.PAID.value!r} to the effects of one"
        yield Fault("sinks", f"take no {Effect.PAID.value}: nobody would learn of a payment", remedy)
