"""Process one inbox message: parse it, find its payment, and have it decided."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta

from msgspec.structs import replace

from providers import trial
from providers.contract import Reading, Statement
from statemachine import own_statements
from statemachine.lifecycle import NOT_CREATED
from statemachine.money import amount_text
from statemachine.observation import Observation
from statemachine.phases import ANSWERS, BY_WEIGHT, MONEY_CALLS, MOVING_PHASES, Outcome, Phase, Review, Source
from storage.batches import Key
from storage.ids import new_id
from storage.tables import InboxMessage, Payment
from storage.types import InboxStatus, PollPriority
from worker import attempts
from worker.accounts import AccountRules, Accounts, ApplySettings
from worker.apply import PaymentWriter
from worker.finder import Finder
from worker.payment_session import Session

#: Sources of our own statements; a message from outside is never one.
_OUR_SOURCES = frozenset({Source.MERCHANT, Source.POLLER, Source.OPERATOR, Source.CREATE, Source.CANCEL, *MONEY_CALLS})

#: Sources of what a provider sends by itself.
_FROM_OUTSIDE = frozenset({Source.WEBHOOK, Source.CALLBACK})

#: Sources of what says all that there is to say of a payment: one that it makes known is not asked about at once.
_WHOLE_WORDS = frozenset({Source.POLL, Source.LIST, Source.JOURNAL})

_OUR_HEADER = ["content-type", own_statements.CONTENT_TYPE]
_SOURCES = {source.value: source for source in Source}
_PARKED, _DECIDED = InboxStatus.PARKED.value, InboxStatus.DECIDED.value

_STILL_MOVING = (*sorted(MOVING_PHASES), Phase.PAID)


def without_claims(observation: Observation) -> Observation:
    """Reduce an observation to the payment that it names: a reason to ask."""
    return Observation(
        observation.source,
        kind=observation.kind,
        is_kind_guessed=observation.is_kind_guessed,
        provider_ref=observation.provider_ref,
        reference=observation.reference,
        names=observation.names,
    )


class MessageProcessor:
    """Applies one message in one unit of work; raises where it must be tried again."""

    def __init__(
        self,
        session: Session,
        message: InboxMessage,
        accounts: Accounts,
        settings: ApplySettings,
        reading: Reading | None = None,
    ) -> None:
        """Take `reading`, the parsed message, where it is known already."""
        self._session = session
        self._message = message
        self._rules = accounts.get(message.account)
        self._settings = settings
        self._now = session.now
        self._finder = Finder(session, message)
        is_believed = self._rules is None or self._rules.believes_push or message.source not in _FROM_OUTSIDE
        self._is_hint = not is_believed
        self._writer = PaymentWriter(session, message, settings, is_hint=self._is_hint)
        self._awaits: str | None = None
        self._reading = reading
        # a sender may write any header it likes
        self.is_ours = message.source in _OUR_SOURCES and _OUR_HEADER in message.headers

    def foresee(self, refs: dict[Key, None], ids: set[str]) -> None:
        """Add the ids of the message's payments, to be loaded with those of its batch."""
        message, rules = self._message, self._rules
        if rules is None:
            return
        if message.about is not None:
            ids.add(message.about)
        if not self.is_ours and message.source != Source.RETURN:
            self._finder.named(rules, self.reading(rules), refs)

    def is_about(self, refs: AbstractSet[tuple[str, str]]) -> bool:
        """Return whether the message names one of these, by account and provider's id."""
        return self._reading is not None and self._finder.names_one_of(refs, self._reading)

    @property
    def message(self) -> InboxMessage:
        """The message that is applied."""
        return self._message

    def is_about_payment(self, held: Mapping[Key | str, str]) -> bool:
        """Return whether the message names one of these, by our id or the provider's."""
        if self._message.about is not None and self._message.about in held:
            return True
        refs: dict[Key, None] = {}
        if self._rules is not None and self._reading is not None:
            self._finder.named(self._rules, self._reading, refs)
        return any(key in held for key in refs)

    def foresee_further(self, names: dict[Key, None]) -> None:
        """Add further names of payments that the message names by no known first one."""
        if self._rules is not None and self._reading is not None and self._message.about is None:
            self._finder.further(self._rules, self._reading, names)

    def foresee_unnamed(self, references: dict[Key, None]) -> None:
        """Add references of payments that the message names by no known id."""
        if self._rules is not None and self._reading is not None and self._message.about is None:
            self._finder.unnamed(self._rules, self._reading, references)

    def foresee_goods(self, references: dict[Key, None]) -> None:
        """Add references under which earlier payments are looked for before fulfilment."""
        if self._rules is not None and self._reading is not None:
            self._finder.giving_goods(self._rules, self._reading, references)

    def run(self) -> None:
        """Decide or park the message, or postpone it until a create call is answered."""
        message, rules = self._message, self._rules
        if rules is None:
            self._writer.note(None, Outcome.PARKED, f"account {message.account} is not configured")
        elif self.is_ours and message.variant_of is not None:
            self._writer.note(None, Outcome.PARKED, f"same identity as message {message.variant_of}, other content")
        elif self.is_ours:
            self._apply_ours(rules, own_statements.decode(message.body))
        elif message.source == Source.RETURN:
            self._ask_about_return(rules)
        elif not self._apply_reading(rules, self.reading(rules)):
            self._session.postpone(message, self._now + timedelta(seconds=1), "a create call is under way")
            return
        self._finish()

    def reading(self, rules: AccountRules) -> Reading:
        """Return the parsed statement; it is parsed once."""
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
        """Apply the parsed statement; return False to postpone the message."""
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
            self._writer.note(None, Outcome.NOTED, reading.note or "nothing to decide")
        return True

    def _apply_unreadable(self, rules: AccountRules, why: str) -> None:
        """Park an authentic message that cannot be parsed, and treat it as a hint.

        The provider is asked about the payment of the call or of the callback URL, else about the account's newest open
        payments. An unreadable answer to our own question asks nothing: the next question has its time.
        """
        message, words = self._message, f"unreadable: {why}"
        payment = None if message.about is None else self._session.known(message.about)
        if payment is None:
            if message.source in _FROM_OUTSIDE:
                count = self._ask_account(rules)
                words = f"{words}; the provider is asked about {count} payments"
            self._writer.note(None, Outcome.PARKED, words, is_unreadable=True)
        elif message.source == Source.CREATE and payment.provider_ref is None and payment.state in (None, NOT_CREATED):
            answered = f"the create call was answered with HTTP {message.http_status}, and the answer is {words}"
            self._writer.review(
                rules,
                payment,
                Review.CREATE_UNKNOWN,
                f"{answered}; the provider may hold a payment all the same",
                outcome=Outcome.PARKED,
                is_unreadable=True,
            )
        elif message.source in MONEY_CALLS:
            answered = (
                f"the {message.source} call was answered with HTTP {message.http_status}, and the answer is {words}"
            )
            self._doubt_call(rules, payment, answered, outcome=Outcome.PARKED, is_unreadable=True)
        elif message.source in (Source.POLL, Source.LIST):
            self._writer.note(payment, Outcome.PARKED, words, is_unreadable=True)
        else:
            words = f"{words}; the provider {rules.asking(payment)}"
            self._writer.note(payment, Outcome.PARKED, words, is_unreadable=True)
            self._ask(rules, payment)

    def _apply_observation(
        self, rules: AccountRules, observation: Observation, payment: Payment | None, *, is_sought: bool
    ) -> None:
        """Decide the observation for its payment; `is_sought`: it was looked for already."""
        if self._is_hint:
            observation = without_claims(observation)
        twins = self._finder.twins(rules, observation)
        if len(twins) > 1:
            for twin in twins:
                words = f"another kind has this id too; the provider {rules.asking(twin)}"
                self._writer.note(twin, Outcome.NOTED, words)
            self._ask(rules, *twins)
            return
        if not is_sought:
            payment = self._finder.find(rules, observation)
        ref, is_new = observation.provider_ref, False
        if payment is not None and payment.provider_ref is not None and self._is_other(rules, payment, observation):
            payment = self._other_of_same_wish(rules, payment, str(ref))
        if payment is not None:
            payment = self._united(rules, payment, observation)
        if payment is None:
            payment = self._adopt_or_park(rules, observation)
            is_new = payment is not None and self._message.source not in _WHOLE_WORDS
        if payment is not None:
            asked_at = self._message.provider_time if self._message.source in ANSWERS else None
            if observation.asked_at != asked_at:
                observation = replace(observation, asked_at=asked_at)
            self._writer.decide(rules, payment, observation, ask=is_new, answers=self._answered_point())
        contradicted = self._finder.contradicted(payment)
        if contradicted is not None:
            words = "came to this payment's own URL, and what is signed is about another one; the provider "
            self._writer.note(contradicted, Outcome.NOTED, words + rules.asking(contradicted))
            self._ask(rules, contradicted)

    def _united(self, rules: AccountRules, payment: Payment, observation: Observation) -> Payment:
        """Return the wish that an adopted payment turns out to be; else the payment.

        Only where nothing is owed for it yet: what was told of one payment cannot become another's.
        """
        reference, ref = observation.reference, observation.provider_ref
        if reference is None or payment.reference is not None or ref is None or ref != payment.provider_ref:
            return payment
        if payment.state is None or payment.counts or payment.names or rules.is_other_environment(observation):
            return payment
        wish = self._session.find_wish(payment, reference)
        if wish is None or wish.state not in (None, NOT_CREATED):
            return payment
        self._writer.unite(rules, payment, wish, observation)
        return wish

    def _is_other(self, rules: AccountRules, payment: Payment, observation: Observation) -> bool:
        """Return whether the id is neither a name of the payment nor one of its attempts."""
        ref = observation.provider_ref
        if ref is None or ref == payment.provider_ref or rules.provider.lifecycles[payment.kind].has_attempts:
            return False
        return not any(attempts.has_name(payment, name) for name in (ref, *observation.names))

    def _other_of_same_wish(self, rules: AccountRules, payment: Payment, ref: str) -> Payment | None:
        """Review a wish that two payments carry, and return the one that has this id."""
        words = f"the create call was answered with {ref}, and the payment is {payment.provider_ref}: there may be two"
        self._writer.review(rules, payment, Review.CREATE_UNKNOWN, words, point=f"id:{ref}")
        return self._session.find_by_ref(payment.account, [payment.kind], ref)

    def _doubt_variant(self, rules: AccountRules, observation: Observation) -> None:
        """Believe neither of two contents with one delivery key; ask the provider."""
        reason = f"same delivery key as message {self._message.variant_of}, other content"
        payment = self._finder.find(rules, observation)
        if payment is not None:
            self._writer.note(payment, Outcome.PARKED, f"{reason}; the provider {rules.asking(payment)}")
            self._ask(rules, payment)
            return
        named = Observation(observation.source, kind=observation.kind, provider_ref=observation.provider_ref)
        payment = self._adopt_or_park(rules, named)
        if payment is not None:
            self._writer.decide(rules, payment, named, ask=True)

    def _ask_about_return(self, rules: AccountRules) -> None:
        about = self._message.about
        payment = None if about is None else self._session.known(about)
        if payment is not None:
            self._writer.note(payment, Outcome.NOTED, f"the payer came back; the provider {rules.asking(payment)}")
            if rules.can_ask(payment.kind):
                self._session.ask_at(payment, self._now, PollPriority.PAYER)
        else:
            self._writer.note(None, Outcome.PARKED, "a return without a payment")

    def _ask_about_hints(self, rules: AccountRules, reading: Reading) -> None:
        named: dict[str, Payment] = {}
        unknown: list[str] = []
        pattern = rules.provider.id_pattern if rules.adopts_unknown else None
        for hint in reading.hints:
            found = self._finder.hinted(rules, hint)
            named |= {payment.id: payment for payment in found}
            if not found and pattern is not None and pattern.fullmatch(hint):
                unknown.append(hint)
        for payment in named.values():
            if reading.hints_money:
                self._writer.see_transfer(rules, payment)
            else:
                self._writer.note(payment, Outcome.NOTED, f"a hint; the provider {rules.asking(payment)}")
            self._ask(rules, payment)
        for ref in unknown:
            for kind in filter(rules.can_ask, rules.provider.lifecycles):
                self._ask_first(kind, ref)
        if not named and not unknown:
            count = 0
            if reading.hints_account:
                count = self._ask_account(rules)
            self._writer.note(
                None, Outcome.NOTED, reading.note or f"a hint; the provider is asked about {count} payments"
            )

    def _may_be_under_way(self, rules: AccountRules, observation: Observation) -> bool:
        """Return whether an unanswered create call may have made this payment."""
        since = self._now - self._settings.create_grace
        if self._message.received_at < since:
            return False
        return self._session.has_unbound(self._message.account, self._finder.kinds(rules, observation), since)

    def _adopt_or_park(self, rules: AccountRules, observation: Observation) -> Payment | None:
        kind, ref = observation.kind, observation.provider_ref
        if kind is None or ref is None:
            self._writer.note(None, Outcome.PARKED, "says neither kind nor id of a payment that is known here")
            return None
        whole = rules.provider.lifecycles[kind].belongs_to
        if whole:
            self._ask_about_whole(rules, whole, f"{kind}:{ref}", observation)
            return None
        if not rules.adopts_unknown and self._message.source not in (Source.POLL, Source.CREATE):
            self._awaits = f"{kind}:{ref}"
            self._writer.note(None, Outcome.PARKED, f"waits for {kind} {ref} to become known", awaits=self._awaits)
            return None
        askable = [each for each in self._finder.kinds(rules, observation) if rules.can_ask(each)]
        if observation.status is None and self._message.source in _FROM_OUTSIDE and askable:
            for each in askable:
                self._ask_first(each, ref)
            return None
        payment = self._writer.begin(new_id(), kind, observation.reference)
        payment.provider_ref = ref
        self._session.add(payment)
        self._writer.reopen(rules, ref)
        return payment

    def _ask_about_whole(self, rules: AccountRules, whole: str, awaited: str, observation: Observation) -> None:
        """Ask about the payment that an unknown thing belongs to, or wait for it."""
        if rules.adopts_unknown and rules.can_ask(whole) and observation.names:
            for name in observation.names:
                self._ask_first(whole, name)
            return
        self._awaits = awaited
        self._writer.note(None, Outcome.PARKED, f"waits for the {whole} of {awaited} to become known", awaits=awaited)

    def _apply_ours(self, rules: AccountRules, statement: own_statements.Statement) -> None:
        about = self._message.about
        if isinstance(statement, own_statements.AccountAlarm):
            self._writer.alarm(statement)
            return
        if about is None:
            self._writer.note(None, Outcome.PARKED, "a statement about no payment")
            return
        if isinstance(statement, own_statements.CreateWanted):
            known = self._session.known(about)
            if known is not None:  # a replay
                self._writer.note(known, Outcome.NOTED, "the payment is here already")
                return
            payment = self._writer.begin(about, statement.kind, statement.reference)
            payment.amount_minor, payment.currency = statement.amount_minor, statement.currency
            payment.return_url = statement.return_url
            payment.description = statement.description
            payment.merchant_metadata = dict(statement.metadata) or None
            self._session.add(payment)
            self._writer.note(payment, Outcome.NOTED, f"the merchant wants a {statement.kind}")
            return
        payment = self._session.get(about)
        if isinstance(statement, own_statements.MoneyWanted):
            words = amount_text(statement.amount_minor, statement.currency)
            self._writer.note(payment, Outcome.NOTED, f"the merchant wants a {statement.call} of {words}")
        elif isinstance(statement, own_statements.Resolution):
            resolved = Observation(
                Source.OPERATOR, status=statement.state, actor=statement.actor, note=statement.reason
            )
            self._writer.decide(rules, payment, resolved)
        elif isinstance(statement, own_statements.PaymentDescribed):
            payment.description = statement.description
            payment.merchant_metadata = dict(statement.metadata) or None
            self._writer.note(payment, Outcome.NOTED, "the merchant describes the payment")
        elif isinstance(statement, own_statements.GaveUp):
            self._apply_gave_up(rules, payment, statement)
        else:
            self._apply_failed_call(rules, payment, statement)

    def _apply_gave_up(self, rules: AccountRules, payment: Payment, gave_up: own_statements.GaveUp) -> None:
        """Open the poller's review, unless a message that it could not see answered it."""
        is_answered = payment.provider_ref is not None or payment.state is not None
        has_changed = payment.changed_at > self._message.received_at
        if is_answered if gave_up.review == Review.CREATE_UNKNOWN else has_changed:
            self._writer.note(payment, Outcome.NOTED, f"overtaken: {gave_up.reason}")
            return
        self._writer.review(rules, payment, Review(gave_up.review), gave_up.reason)

    def _apply_failed_call(self, rules: AccountRules, payment: Payment, failed: own_statements.CallFailed) -> None:
        words = f"{failed.call} failed: {failed.code}: {failed.message}"
        if failed.call == "cancel":
            self._writer.note(payment, Outcome.NOTED, f"{words}; the provider {rules.asking(payment)}")
            self._ask(rules, payment)
        elif failed.call in MONEY_CALLS:
            if failed.is_ambiguous:
                self._doubt_call(rules, payment, words, wish=failed.wish)
            else:
                self._writer.note(payment, Outcome.NOTED, f"{words}; no money was moved")
            self._ask(rules, payment)
        elif payment.provider_ref is None and payment.state not in (None, NOT_CREATED):
            self._writer.note(payment, Outcome.NOTED, f"{words}; a person has said what became of it")
        elif payment.provider_ref is not None:  # a repeat was refused, or a webhook was quicker: it does exist
            words = f"{words}; the provider has it all the same, and {rules.asking(payment)}"
            self._writer.note(payment, Outcome.NOTED, words)
            self._ask(rules, payment)
        elif failed.is_ambiguous:
            self._writer.review(
                rules, payment, Review.CREATE_UNKNOWN, f"{words}; the provider may hold a payment all the same"
            )
        else:
            refused = Observation(Source.CREATE, status=NOT_CREATED, failure_reason=failed.code)
            self._writer.decide(rules, payment, refused)

    def _doubt_call(
        self,
        rules: AccountRules,
        payment: Payment,
        words: str,
        *,
        wish: str | None = None,
        outcome: Outcome = Outcome.NOTED,
        is_unreadable: bool = False,
    ) -> None:
        """Review a capture or refund of which nobody knows whether it was done."""
        point = self._answered_point() if wish is None else own_statements.point_of(self._message.source, wish)
        self._writer.review(
            rules,
            payment,
            Review.OUTCOME_UNKNOWN,
            f"{words}; the money may have moved all the same",
            point=point,
            outcome=outcome,
            is_unreadable=is_unreadable,
        )

    def _answered_point(self) -> str | None:
        """Return the point of the capture or refund that this message answers, if any."""
        if self._message.source not in MONEY_CALLS:
            return None
        wish = own_statements.wish_of(self._message.headers)
        return None if wish is None else own_statements.point_of(self._message.source, wish)

    def _finish(self) -> None:
        message, entries = self._message, self._writer.outcomes
        entry = entries[0] if len(entries) == 1 else min(entries, key=lambda each: BY_WEIGHT.index(each["outcome"]))
        message.decision, message.reason = outcome, _ = entry["outcome"], entry["reason"]
        message.status = _PARKED if outcome == Outcome.PARKED else _DECIDED
        message.outcomes = entries
        message.payment_id = next(iter(self._writer.payment_ids), message.payment_id)
        message.last_error = None
        message.awaits = self._awaits
        message.decided_at = self._now
        self._session.finish(message)

    def _ask_first(self, kind: str, ref: str) -> None:
        """Have the provider asked about an unknown id: its answer adopts, no delivery."""
        if self._session.ask_about_id(self._message.account, kind, ref):
            words = f"no {kind} {ref} is known here; the provider is asked, and its answer makes it known"
        else:
            words = f"no {kind} {ref} is known here, and too many such ids wait to be asked about"
        self._writer.note(None, Outcome.NOTED, words)

    def _ask_account(self, rules: AccountRules) -> int:
        """Have the provider asked about the account's newest payments; count them."""
        if not any(map(rules.can_ask, rules.provider.lifecycles)):
            return 0
        return self._session.ask_account(self._message.account, _STILL_MOVING, self._settings.hint_asks)

    def _ask(self, rules: AccountRules, *payments: Payment) -> None:
        """Have the provider asked about these payments soon, where that is possible."""
        for payment in filter(lambda each: rules.can_ask(each.kind), payments):
            self._session.ask_at(payment, self._now, PollPriority.DOUBT)
