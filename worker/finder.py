"""Finds whose payment a statement is about; locks what it finds, and changes nothing."""

from collections.abc import Set as AbstractSet

from providers.contract import Reading
from statemachine.observation import Observation
from statemachine.phases import Source
from storage.batches import Key
from storage.tables import InboxMessage, Payment
from worker.accounts import AccountRules
from worker.batch import Batch


class Finder:
    """Payments that one message may be about."""

    def __init__(self, batch: Batch, message: InboxMessage) -> None:
        self._batch = batch
        self._message = message
        self._account = message.account
        self._kinds: dict[str | None, list[str]] = {}  #: what `kinds` has answered

    def kinds(self, rules: AccountRules, observation: Observation) -> list[str]:
        """The kinds that the statement may be about, the likeliest first."""
        kind = observation.kind
        found = self._kinds.get(kind)
        if found is None:
            every = rules.provider.lifecycles
            if kind is None:
                found = list(every)
            elif self._message.kind is not None:
                found = [kind]
            else:
                found = [kind, *(each for each in every if each != kind)]
            self._kinds[kind] = found
        return found

    def find(self, rules: AccountRules, observation: Observation) -> Payment | None:
        """The payment that the statement is about: by the provider's name, the channel, or the merchant's reference."""
        batch, account, ref = self._batch, self._account, observation.provider_ref
        about_id = self._message.about
        kinds = self.kinds(rules, observation)
        if about_id is not None and self._message.source == Source.CREATE:
            return batch.get(about_id)
        if ref is not None:
            named = batch.find_by_ref(account, kinds, ref)
            if named is not None:
                return named
        if about_id is not None:
            about = batch.get(about_id)
            is_its_ref = about.provider_ref is None or ref in (None, about.provider_ref)
            is_its_reference = None in (about.reference, observation.reference) or (
                about.reference == observation.reference
            )
            if about.account == account and is_its_ref and (about.provider_ref is not None or is_its_reference):
                return about
        if observation.reference is not None:
            return batch.find_unbound(account, kinds, observation.reference)
        return None

    def twins(self, rules: AccountRules, observation: Observation) -> list[Payment]:
        """Payments of several kinds that the statement may be about, where nothing but its own words tells the kind."""
        if len(rules.provider.lifecycles) == 1 or self._message.kind is not None or observation.provider_ref is None:
            return []
        account, ref = self._message.account, observation.provider_ref
        return [p for kind in rules.provider.lifecycles if (p := self._batch.find_by_ref(account, [kind], ref))]

    def hinted(self, rules: AccountRules, hint: str) -> list[Payment]:
        """What the hint names, of every kind, and ended ones too: it may be of money that came late."""
        account, kinds = self._message.account, list(rules.provider.lifecycles)
        for find in (self._batch.find_by_ref, self._batch.find_by_reference, self._batch.find_by_alias):
            found = [p for kind in kinds if (p := find(account, [kind], hint)) is not None]
            if found:
                return found
        return []

    # -- beforehand, so that what many messages name can be read together

    def named(self, rules: AccountRules, reading: Reading, keys: dict[Key, None]) -> None:
        """Add the names under which `find` and `hinted` will look."""
        account = self._account
        for observation in reading.observations:
            if observation.provider_ref is not None:
                for kind in self.kinds(rules, observation):
                    keys[account, kind, observation.provider_ref] = None
        for hint in reading.hints:
            for kind in rules.provider.lifecycles:
                keys[account, kind, hint] = None

    def names_one_of(self, refs: AbstractSet[tuple[str, str]], reading: Reading) -> bool:
        """Whether the reading has one of these names, by account."""
        account = self._message.account
        told = (*(observation.provider_ref for observation in reading.observations), *reading.hints)
        return any((account, ref) in refs for ref in told)

    def unnamed(self, rules: AccountRules, reading: Reading, keys: dict[Key, None]) -> None:
        """Add the references under which `find` will look, now that the names are known."""
        account = self._account
        for observation in reading.observations:
            reference, ref = observation.reference, observation.provider_ref
            if reference is not None:
                kinds = self.kinds(rules, observation)
                if ref is None or not self._batch.knows_ref(account, kinds, ref):
                    for kind in kinds:
                        keys[account, kind, reference] = None
