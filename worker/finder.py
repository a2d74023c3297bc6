"""Finds whose payment a statement is about; locks what it finds, and changes nothing."""

from statemachine.observation import Observation
from statemachine.phases import Source
from storage import payments
from storage.engine import Unit
from storage.tables import InboxMessage, Payment
from worker.accounts import AccountRules


class Finder:
    """Payments that one message may be about."""

    def __init__(self, unit: Unit, message: InboxMessage) -> None:
        self._unit = unit
        self._message = message

    def kinds(self, rules: AccountRules, observation: Observation) -> list[str]:
        """The kinds that the statement may be about, the likeliest first."""
        every = list(rules.provider.lifecycles)
        if observation.kind is None:
            return every
        if self._message.kind is not None:
            return [observation.kind]
        return [observation.kind, *(kind for kind in every if kind != observation.kind)]

    def find(self, rules: AccountRules, observation: Observation) -> Payment | None:
        """The payment that the statement is about: by the provider's name, the channel, or the merchant's reference."""
        unit, account, ref = self._unit, self._message.account, observation.provider_ref
        kinds = self.kinds(rules, observation)
        if self._message.source == Source.CREATE and self._message.about is not None:
            return payments.get(unit, self._message.about, lock=True)
        if ref is not None:
            named = payments.find_by_ref(unit, account, kinds, ref)
            if named is not None:
                return named
        if self._message.about is not None:
            about = payments.get(unit, self._message.about, lock=True)
            is_its_ref = about.provider_ref is None or ref in (None, about.provider_ref)
            is_its_reference = None in (about.reference, observation.reference) or (
                about.reference == observation.reference
            )
            if about.account == account and is_its_ref and (about.provider_ref is not None or is_its_reference):
                return about
        if observation.reference is not None:
            return payments.find_unbound(unit, account, kinds, observation.reference)
        return None

    def twins(self, rules: AccountRules, observation: Observation) -> list[Payment]:
        """Payments of several kinds that the statement may be about, where nothing but its own words tells the kind."""
        if self._message.kind is not None or observation.provider_ref is None or len(rules.provider.lifecycles) == 1:
            return []
        account, ref = self._message.account, observation.provider_ref
        return [
            p for kind in rules.provider.lifecycles if (p := payments.find_by_ref(self._unit, account, [kind], ref))
        ]

    def hinted(self, rules: AccountRules, hint: str) -> list[Payment]:
        """What the hint names, of every kind, and ended ones too: it may be of money that came late."""
        account, kinds = self._message.account, list(rules.provider.lifecycles)
        for find in (payments.find_by_ref, payments.find_by_reference, payments.find_by_alias):
            found = [p for kind in kinds if (p := find(self._unit, account, [kind], hint)) is not None]
            if found:
                return found
        return []
