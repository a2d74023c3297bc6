"""Applies one inbox message: reads it, has its payment found (worker/finder.py) and decided (worker/apply.py)."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta

from msgspec.structs import replace

from providers import trial
from providers.contract import Reading, Statement
from statemachine import statements
from statemachine.lifecycle import NOT_CREATED
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, Outcome, Phase, Review, Source
from storage.batches import Key
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from storage.types import InboxStatus, PollPriority
from worker.accounts import AccountRules, Accounts, ApplySettings
from worker.apply import PaymentWriter
from worker.finder import Finder
from worker.session import Session

#: The decision of a message with several observations is the weightiest of theirs.
_WEIGHT = (Outcome.CONFLICT, Outcome.PARKED, Outcome.ADVANCED, Outcome.UNCHANGED, Outcome.STALE, Outcome.NOTED)

#: Where statements of our own come from; what comes in from outside is never one.
_OUR_SOURCES = frozenset({Source.MERCHANT, Source.POLLER, Source.OPERATOR, Source.CREATE, Source.CANCEL})

#: What a provider sends by itself.
_FROM_OUTSIDE = frozenset({Source.WEBHOOK, Source.CALLBACK})

_OUR_HEADER = ["content-type", statements.CONTENT_TYPE]
_SOURCES = {source.value: source for source in Source}
_PARKED, _DECIDED = InboxStatus.PARKED.value, InboxStatus.DECIDED.value

_STILL_MOVING = (Phase.OPEN, Phase.PROCESSING, Phase.PAID)


class MessageProcessor:
    """One message applied within one unit of work. Raises for what must be tried again; then nothing is kept."""

    def __init__(
        self,
        batch: Session,
        message: InboxMessage,
        accounts: Accounts,
        settings: ApplySettings,
        reading: Reading | None = None,
    ) -> None:
        """`reading` is what the message means, where that is known already."""
        self._batch = batch
        self._message = message
        self._rules = accounts.get(message.account)
        self._settings = settings
        self._now = batch.now
        self._finder = Finder(batch, message)
        self._ledger = PaymentWriter(batch, message, settings)
        self._awaits: str | None = None
        self._reading = reading
        # a sender may write any header it likes
        self.is_ours = message.source in _OUR_SOURCES and _OUR_HEADER in message.headers

    def foresee(self, refs: dict[Key, None], ids: set[str]) -> None:
        """Add the payments that the message names, so that they can be read with all others'."""
        message, rules = self._message, self._rules
        if rules is None:
            return
        if message.about is not None:
            ids.add(message.about)
        if not self.is_ours and message.source != Source.RETURN:
            self._finder.named(rules, self.reading(rules), refs)

    def is_about(self, refs: AbstractSet[tuple[str, str]]) -> bool:
        """Whether the message names one of these payments, by account and the provider's name."""
        return self._reading is not None and self._finder.names_one_of(refs, self._reading)

    @property
    def message(self) -> InboxMessage:
        """What is applied."""
        return self._message

    def is_about_payment(self, held: Mapping[Key | str, str]) -> bool:
        """Whether the message names one of these payments, by its id or the provider's name."""
        if self._message.about is not None and self._message.about in held:
            return True
        refs: dict[Key, None] = {}
        if self._rules is not None and self._reading is not None:
            self._finder.named(self._rules, self._reading, refs)
        return any(key in held for key in refs)

    def foresee_unnamed(self, references: dict[Key, None]) -> None:
        """Add the references of payments that the message does not name by an id that is known here."""
        if self._rules is not None and self._reading is not None and self._message.about is None:
            self._finder.unnamed(self._rules, self._reading, references)

    def foresee_goods(self, references: dict[Key, None]) -> None:
        """Add the references under which other payments will be looked for, before goods are owed."""
        if self._rules is not None and self._reading is not None:
            self._finder.giving_goods(self._rules, self._reading, references)

    def run(self) -> None:
        """The message is decided or parked, or put off until the create call that it may belong to is answered."""
        message, rules = self._message, self._rules
        if rules is None:
            self._ledger.note(None, Outcome.PARKED, f"account {message.account} is not configured")
        elif self.is_ours and message.variant_of is not None:
            self._ledger.note(None, Outcome.PARKED, f"same identity as message {message.variant_of}, other content")
        elif self.is_ours:
            self._apply_ours(rules, statements.decode(message.body))
        elif message.source == Source.RETURN:
            self._ask_about_return()
        elif not self._apply_reading(rules, self.reading(rules)):
            self._batch.put_off(message, self._now + timedelta(seconds=1), "a create call is under way")
            return
        self._finish()

    def reading(self, rules: AccountRules) -> Reading:
        """What the statement means; it is read once."""
        if self._reading is None:
            self._reading = self._read(rules)
        return self._reading

    def _read(self, rules: AccountRules) -> Reading:
        message = self._message
        if trial.is_trial(message.body):
            return trial.READING
        source = _SOURCES.get(message.source) or Source(message.source)
        # An answer is true of the instant at which we asked; a slow one must not look newer than a later question's.
        asked_at = message.provider_time if source in ANSWERS else None
        return rules.provider.parse(
            Statement(
                source=source,
                body=message.body,
                received_at=asked_at or message.received_at,
                kind=message.kind,
                ref=message.ref,
                http_status=message.http_status,
            )
        )

    def _apply_reading(self, rules: AccountRules, reading: Reading) -> bool:
        """Whether the reading was applied; False where it should be read again shortly."""
        if reading.unreadable:
            self._apply_unreadable(rules, reading.unreadable)
            return True
        is_create = self._message.source == Source.CREATE
        if is_create and all(seen.provider_ref is None for seen in reading.observations):
            self._apply_unreadable(rules, reading.note or "it names no payment")
            return True
        found: Payment | None = None
        if rules.adopts_unknown:
            for observation in reading.observations:
                found = self._finder.find(rules, observation)
                if found is None and self._may_be_under_way(rules, observation):
                    return False  # before anything is decided, so that all of the message is put off
        # nothing has changed since it was looked for, where there is no other
        is_sought = rules.adopts_unknown and len(reading.observations) == 1
        for observation in reading.observations:
            if self._message.variant_of is not None:
                self._doubt_variant(rules, observation)
            else:
                self._apply_observation(rules, observation, found, is_sought=is_sought)
        if reading.hints or reading.hints_account:
            self._ask_about_hints(rules, reading)
        elif not reading.observations:
            self._ledger.note(None, Outcome.NOTED, reading.note or "nothing to decide")
        return True

    def _apply_unreadable(self, rules: AccountRules, why: str) -> None:
        """Park what is authentic and says nothing to us; it is a hint all the same, and stands where it belongs.

        The provider is asked about the payment of the call or of the callback's URL, else about the account's newest
        open payments. An answer to a question of ours asks for nothing: the next question has its time.
        """
        message, words = self._message, f"unreadable: {why}"
        payment = None if message.about is None else self._batch.known(message.about)
        if payment is None:
            if message.source in _FROM_OUTSIDE:
                count = self._batch.ask_account(message.account, _STILL_MOVING, self._settings.hint_asks)
                words = f"{words}; the provider is asked about {count} payments"
            self._ledger.note(None, Outcome.PARKED, words, is_unreadable=True)
        elif message.source == Source.CREATE and payment.provider_ref is None and payment.state in (None, NOT_CREATED):
            answered = f"the create call was answered with HTTP {message.http_status}, and the answer is {words}"
            self._ledger.review(
                rules,
                payment,
                Review.CREATE_UNKNOWN,
                f"{answered}; the provider may hold a payment all the same",
                outcome=Outcome.PARKED,
                is_unreadable=True,
            )
        elif message.source in (Source.POLL, Source.LIST):
            self._ledger.note(payment, Outcome.PARKED, words, is_unreadable=True)
        else:
            can_ask = "is asked" if payment.provider_ref else "cannot be asked before it has named the payment"
            self._ledger.note(payment, Outcome.PARKED, f"{words}; the provider {can_ask}", is_unreadable=True)
            self._ask(payment)

    def _apply_observation(
        self, rules: AccountRules, observation: Observation, payment: Payment | None, *, is_sought: bool
    ) -> None:
        """`payment` is what it is about, where that was looked for already (`is_sought`)."""
        twins = self._finder.twins(rules, observation)
        if len(twins) > 1:
            for twin in twins:
                self._ledger.note(twin, Outcome.NOTED, "another kind has this id too; the provider is asked")
            self._ask(*twins)
            return
        if not is_sought:
            payment = self._finder.find(rules, observation)
        ref, is_new = observation.provider_ref, False
        if payment is not None and payment.provider_ref is not None and ref not in (None, payment.provider_ref):
            payment = self._other_of_same_wish(rules, payment, ref)
        if payment is None:
            payment = self._adopt_or_park(rules, observation)
            is_new = payment is not None and self._message.source not in (Source.POLL, Source.LIST)
        if payment is not None:
            asked_at = self._message.provider_time if self._message.source in ANSWERS else None
            if observation.asked_at != asked_at:
                observation = replace(observation, asked_at=asked_at)
            self._ledger.decide(rules, payment, observation, ask=is_new)
        contradicted = self._finder.contradicted(payment)
        if contradicted is not None:
            words = "came to this payment's own URL, and what is signed is about another one; the provider is asked"
            self._ledger.note(contradicted, Outcome.NOTED, words)
            self._ask(contradicted)

    def _other_of_same_wish(self, rules: AccountRules, payment: Payment, ref: str) -> Payment | None:
        """The payment that a create call made, where its wish is another payment by now; a person must look."""
        words = f"the create call was answered with {ref}, and the payment is {payment.provider_ref}: there may be two"
        self._ledger.review(rules, payment, Review.CREATE_UNKNOWN, words, point=f"id:{ref}")
        return self._batch.find_by_ref(payment.account, [payment.kind], ref)

    def _doubt_variant(self, rules: AccountRules, observation: Observation) -> None:
        """The provider gave one identity to two contents: believe neither, ask."""
        reason = f"same delivery key as message {self._message.variant_of}, other content"
        payment = self._finder.find(rules, observation)
        if payment is not None:
            self._ledger.note(payment, Outcome.PARKED, f"{reason}; the provider is asked")
            self._ask(payment)
            return
        named = Observation(observation.source, kind=observation.kind, provider_ref=observation.provider_ref)
        payment = self._adopt_or_park(rules, named)
        if payment is not None:
            self._ledger.decide(rules, payment, named, ask=True)

    def _ask_about_return(self) -> None:
        about = self._message.about
        payment = None if about is None else self._batch.known(about)
        if payment is not None:
            self._ledger.note(payment, Outcome.NOTED, "the payer came back; the provider is asked")
            self._batch.ask_at(payment, self._now, PollPriority.PAYER)
        else:
            self._ledger.note(None, Outcome.PARKED, "a return without a payment")

    def _ask_about_hints(self, rules: AccountRules, reading: Reading) -> None:
        account = self._message.account
        named: dict[str, Payment] = {}
        for hint in reading.hints:
            named |= {payment.id: payment for payment in self._finder.hinted(rules, hint)}
        for payment in named.values():
            if reading.hints_money:
                self._ledger.see_transfer(rules, payment)
            else:
                can_ask = "is asked" if payment.provider_ref else "cannot be asked before it has named the payment"
                self._ledger.note(payment, Outcome.NOTED, f"a hint; the provider {can_ask}")
            self._ask(payment)
        if not named:
            count = 0
            if reading.hints_account:
                count = self._batch.ask_account(account, _STILL_MOVING, self._settings.hint_asks)
            self._ledger.note(
                None, Outcome.NOTED, reading.note or f"a hint; the provider is asked about {count} payments"
            )

    def _may_be_under_way(self, rules: AccountRules, observation: Observation) -> bool:
        """Whether a create call without an answer yet may turn out to have made this very payment."""
        since = self._now - self._settings.create_grace
        if self._message.received_at < since:
            return False
        return self._batch.has_unbound(self._message.account, self._finder.kinds(rules, observation), since)

    def _adopt_or_park(self, rules: AccountRules, observation: Observation) -> Payment | None:
        kind, ref = observation.kind, observation.provider_ref
        if kind is None or ref is None:
            self._ledger.note(None, Outcome.PARKED, "says neither kind nor id of a payment that is known here")
            return None
        if not rules.adopts_unknown and self._message.source not in (Source.POLL, Source.CREATE):
            self._awaits = f"{kind}:{ref}"
            self._ledger.note(None, Outcome.PARKED, f"waits for {kind} {ref} to become known")
            return None
        payment = self._ledger.begin(new_id(), kind, observation.reference)
        payment.provider_ref = ref
        self._batch.add(payment)
        self._ledger.reopen(rules, ref)
        return payment

    def _apply_ours(self, rules: AccountRules, statement: statements.Statement) -> None:
        about = self._message.about
        if isinstance(statement, statements.AccountAlarm):
            self._ledger.alarm(statement)
            return
        if about is None:
            self._ledger.note(None, Outcome.PARKED, "a statement about no payment")
            return
        if isinstance(statement, statements.CreateWanted):
            known = self._batch.known(about)
            if known is not None:  # a replay
                self._ledger.note(known, Outcome.NOTED, "the payment is here already")
                return
            payment = self._ledger.begin(about, statement.kind, statement.reference)
            payment.amount_minor, payment.currency = statement.amount_minor, statement.currency
            payment.return_url = statement.return_url
            self._batch.add(payment)
            self._ledger.note(payment, Outcome.NOTED, f"the merchant wants a {statement.kind}")
            return
        payment = self._batch.get(about)
        if isinstance(statement, statements.Resolution):
            resolved = Observation(
                Source.OPERATOR, status=statement.state, actor=statement.actor, note=statement.reason
            )
            self._ledger.decide(rules, payment, resolved)
        elif isinstance(statement, statements.GaveUp):
            self._apply_gave_up(rules, payment, statement)
        else:
            self._apply_failed_call(rules, payment, statement)

    def _apply_gave_up(self, rules: AccountRules, payment: Payment, gave_up: statements.GaveUp) -> None:
        """A review, unless what was missed has come meanwhile: the poller cannot see what waits in the inbox."""
        is_answered = payment.provider_ref is not None or payment.state is not None
        has_changed = payment.changed_at > self._message.received_at
        if is_answered if gave_up.review == Review.CREATE_UNKNOWN else has_changed:
            self._ledger.note(payment, Outcome.NOTED, f"overtaken: {gave_up.reason}")
            return
        self._ledger.review(rules, payment, Review(gave_up.review), gave_up.reason)

    def _apply_failed_call(self, rules: AccountRules, payment: Payment, failed: statements.CallFailed) -> None:
        words = f"{failed.call} failed: {failed.code}: {failed.message}"
        if failed.call == "cancel":
            self._ledger.note(payment, Outcome.NOTED, f"{words}; the provider is asked")
            self._ask(payment)
        elif payment.provider_ref is None and payment.state not in (None, NOT_CREATED):
            self._ledger.note(payment, Outcome.NOTED, f"{words}; a person has said what became of it")
        elif payment.provider_ref is not None:  # a repeat was refused, or a webhook was quicker: it does exist
            self._ledger.note(payment, Outcome.NOTED, f"{words}; the provider has it all the same, and is asked")
            self._ask(payment)
        elif failed.is_ambiguous:
            self._ledger.review(
                rules, payment, Review.CREATE_UNKNOWN, f"{words}; the provider may hold a payment all the same"
            )
        else:
            refused = Observation(Source.CREATE, status=NOT_CREATED, failure_reason=failed.code)
            self._ledger.decide(rules, payment, refused)

    def _finish(self) -> None:
        message, entries = self._message, self._ledger.outcomes
        entry = entries[0] if len(entries) == 1 else min(entries, key=lambda each: _WEIGHT.index(each["outcome"]))
        message.decision, message.reason = outcome, _ = entry["outcome"], entry["reason"]
        message.status = _PARKED if outcome == Outcome.PARKED else _DECIDED
        message.outcomes = [*message.outcomes, *entries]
        named, before = self._ledger.payment_ids, message.payment_id
        message.payment_id = next(iter(named), before)
        others = [each for each in (*named, *filter(None, [before])) if each != message.payment_id]
        if others:
            self._batch.also_about(message, others)
        message.awaits = self._awaits
        message.decided_at = self._now
        self._batch.finish(message)

    def _ask(self, *payments: Payment) -> None:
        """The provider is to confirm what is said of them."""
        for payment in payments:
            self._batch.ask_at(payment, self._now, PollPriority.DOUBT)
