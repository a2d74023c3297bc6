"""Finder of the payment that a statement is about; locks rows and changes nothing."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from providers.contract import Reading
from statemachine.lifecycle import Lifecycle
from statemachine.observation import Observation
from statemachine.phases import FULFILMENT_PHASES, Source
from storage.batches import Key
from storage.tables import InboxMessage, Payment
from worker.accounts import AccountRules
from worker.payment_session import Session


class Finder:
    """Finds the payments that one message may be about."""

    def __init__(self, session: Session, message: InboxMessage) -> None:
        self._session = session
        self._message = message
        self._account = message.account

    def kinds(self, rules: AccountRules, observation: Observation) -> tuple[str, ...]:
        """Return the possible kinds, the likeliest first; only the body's, if it says one."""
        kind = observation.kind
        if kind is None:
            return tuple(rules.provider.lifecycles)
        if not observation.is_kind_guessed or self._message.kind is not None:
            return (kind,)
        return (kind, *(each for each in rules.provider.lifecycles if each != kind))

    def find(self, rules: AccountRules, observation: Observation) -> Payment | None:
        """Find the payment by the provider's id, the callback URL, or the reference.

        The channel (a callback's token) is not signed: it counts only where the statement does not say otherwise. Of
        the other environment nothing but the provider's name is believed: an order's number may exist in both.
        """
        session, account, ref = self._session, self._account, observation.provider_ref
        about_id = self._message.about
        if about_id is not None and self._message.source == Source.CREATE:
            return session.get(about_id)
        kinds = self.kinds(rules, observation)
        if ref is not None:
            named = session.find_by_ref(account, kinds, ref)
            if named is not None:
                return named
        further = self._find_further(rules, observation)
        if further is not None:
            return further
        if rules.is_other_environment(observation):
            return None
        about = None if about_id is None else session.known(about_id)
        if about is not None and about.account == account and about.kind in kinds and _may_mean(observation, about):
            return about
        if observation.reference is not None:
            unbound = session.find_unbound(account, kinds, observation.reference)
            attempted = [kind for kind in kinds if rules.provider.lifecycles[kind].has_attempts]
            if unbound is None and attempted and ref is not None:
                return session.find_by_reference(account, attempted, observation.reference)
            return unbound
        return None

    def _find_further(self, rules: AccountRules, observation: Observation) -> Payment | None:
        """Find the payment by a further name, or whose first name is a further one here."""
        keys = list(self._further_keys(rules, observation))
        for account, kind, name in keys:
            found = self._session.find_by_name(account, [kind], name)
            if found is None and name != observation.provider_ref:
                found = self._session.find_by_ref(account, [kind], name)
            if found is not None:
                return found
        return None

    def _further_keys(self, rules: AccountRules, observation: Observation) -> Iterator[Key]:
        """Yield the keys of further names; none where all things have one id."""
        kinds = _further_kinds(rules, observation.kind)
        for name in (observation.provider_ref, *observation.names):
            if name is not None:
                yield from ((self._account, kind, name) for kind in kinds)

    def contradicted(self, payment: Payment | None) -> Payment | None:
        """Return the payment of the callback URL, if the message is not about it."""
        about_id = self._message.about
        if about_id is None or self._message.source != Source.CALLBACK or (payment and payment.id == about_id):
            return None
        return self._session.known(about_id)

    def twins(self, rules: AccountRules, observation: Observation) -> list[Payment]:
        """Return payments of several kinds with this id, if the body tells no kind.

        The channel that it came by does not tell it either: whoever has a signed body may send it to any URL.
        """
        is_said = observation.kind is not None and not observation.is_kind_guessed
        if is_said or observation.provider_ref is None or len(rules.provider.lifecycles) == 1:
            return []
        account, ref = self._message.account, observation.provider_ref
        return [p for kind in rules.provider.lifecycles if (p := self._session.find_by_ref(account, [kind], ref))]

    def hinted(self, rules: AccountRules, hint: str) -> list[Payment]:
        """Return payments that the hint names, ended ones too: money may come late."""
        account, kinds = self._message.account, list(rules.provider.lifecycles)
        further = _further_kinds(rules, None)
        if named := [p for kind in kinds if (p := self._session.find_by_ref(account, [kind], hint)) is not None]:
            return named
        if further and (payment := self._session.find_by_name(account, further, hint)) is not None:
            return [payment]
        for find in (self._session.find_by_reference, self._session.find_by_alias):
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
                guessed = observation.is_kind_guessed
                for kind in rules.provider.lifecycles if guessed else self.kinds(rules, observation):
                    keys[account, kind, observation.provider_ref] = None
        for hint in reading.hints:
            for kind in rules.provider.lifecycles:
                keys[account, kind, hint] = None

    def further(self, rules: AccountRules, reading: Reading, keys: dict[Key, None]) -> None:
        """Add further names under which `find` will look, first names being known."""
        account = self._account
        for observation in reading.observations:
            further = dict.fromkeys(self._further_keys(rules, observation))
            ref = observation.provider_ref
            if further and (ref is None or not self._session.knows_ref(account, self.kinds(rules, observation), ref)):
                keys |= further

    def names_one_of(self, refs: AbstractSet[tuple[str, str]], reading: Reading) -> bool:
        """Return whether the reading has one of these names, by account."""
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
                if ref is None or not self._session.knows_ref(account, kinds, ref):
                    for kind in kinds:
                        keys[account, kind, reference] = None

    def giving_goods(self, rules: AccountRules, reading: Reading, keys: dict[Key, None]) -> None:
        """Add the references of which `namesakes` will look for other payments."""
        account = self._account
        for observation in reading.observations:
            kinds, lifecycles = self.kinds(rules, observation), rules.provider.lifecycles
            if not any(gives_goods(lifecycles[kind], observation) for kind in kinds):
                continue
            ref, reference, kind = observation.provider_ref, observation.reference, kinds[0]
            if ref is not None and self._session.knows_ref(account, kinds, ref):
                payment = self._session.find_by_ref(account, kinds, ref)
                if payment is not None:
                    reference, kind = payment.reference or reference, payment.kind
            if reference is not None and gives_goods(lifecycles[kind], observation):
                for each in namesake_kinds(rules, kind):
                    keys[account, each, reference] = None


def gives_goods(lifecycle: Lifecycle, observation: Observation) -> bool:
    """Return whether the statement says that the money is there."""
    status = observation.status
    return status is not None and lifecycle.knows(status) and lifecycle.phase(status) in FULFILMENT_PHASES


def _further_kinds(rules: AccountRules, kind: str | None) -> list[str]:
    """Return the kinds with further names that a thing of this kind may belong to."""
    lifecycles = rules.provider.lifecycles
    subject = None if kind is None else lifecycles[kind].subject
    return [
        name
        for name, each in lifecycles.items()
        if (each.has_names or each.has_attempts) and subject in (None, each.subject)
    ]


def namesake_kinds(rules: AccountRules, kind: str) -> list[str]:
    """Return the kinds that share references with this one, such as refunds."""
    lifecycles = rules.provider.lifecycles
    return [name for name, each in lifecycles.items() if each.subject == lifecycles[kind].subject]


def _may_mean(observation: Observation, about: Payment) -> bool:
    """Return whether the statement does not contradict the callback URL's payment.

    The amount may differ where the statement names the payment: then it is in doubt. Where nothing but the channel
    names it, another amount is another payment's.
    """
    ref, reference = observation.provider_ref, observation.reference
    if None not in (ref, about.provider_ref) and ref != about.provider_ref:
        return False
    if None not in (reference, about.reference) and reference != about.reference:
        return False
    is_named = (ref is not None and ref == about.provider_ref) or (
        reference is not None and reference == about.reference
    )
    told = (observation.amount_minor, about.amount_minor), (observation.currency, about.currency)
    return is_named or all(None in pair or pair[0] == pair[1] for pair in told)
