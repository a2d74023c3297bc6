"""Which payments a reconciliation asks about one by one: the rest, after the provider's list. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import Outcome, Phase
from storage.reconciliations import Candidate

IsTerminal = Callable[[str, str | None], bool]  #: of kind and state

#: How decide() words it that the state which was told is the one that we know. Were the words others, more would be
#: asked, and nothing missed.
_ALREADY: Final = "already "

#: Where the money is, or is gone again: a terminal state of these phases is the provider's last word.
_LAST_WORDS: Final = frozenset({Phase.PAID, Phase.SETTLED, Phase.REFUNDED})


def can_differ(candidate: Candidate, is_terminal: IsTerminal) -> bool:
    """Whether the provider may know more of the payment than we do, so that it is worth a question.

    - Open, processing, or in any state that something legal follows: yes. A paid payment that its provider can still
      settle or refund is one of these, however long ago it was paid.
    - Ended without money (failed, cancelled, expired): yes, although most lifecycles call that terminal. Money comes
      late, and a provider that then changes its word tells nobody who has stopped asking; that is the dearest drift of
      all, since the goods are not given out.
    - Terminal with the money there, or given back: no. By the provider's own lifecycle nothing follows, so a question
      could only be answered with what we know.
    - Refused by the provider when we wanted to create it, so that there is nothing there: no.

    The reconciliation's range bounds all of it: what neither began nor changed within it is not asked about.
    """
    if candidate.state == NOT_CREATED:
        return False
    return not is_terminal(candidate.kind, candidate.state) or candidate.phase not in _LAST_WORDS


def tells(outcome: Mapping[str, Any]) -> bool:
    """Whether what was decided about one payment settles what state the provider has it in.

    A conflict, an unknown status, a statement that was overtaken or a mere hint does not: the provider is asked.
    """
    if outcome["outcome"] == Outcome.UNCHANGED:
        return str(outcome["reason"]).startswith(_ALREADY)
    return bool(outcome["outcome"] == Outcome.ADVANCED)


def rest_of(
    in_range: Sequence[Candidate], named: Sequence[Candidate], told: frozenset[str], is_terminal: IsTerminal
) -> list[Candidate]:
    """What is to be asked about, in order and each once: of the range what can differ, and what the list only named.

    `told` are the ids of the payments whose state the list has told; they are left out. What the provider has not
    given an id yet cannot be asked about (see unnamed()).
    """
    wanted = {candidate.id: candidate for candidate in in_range if can_differ(candidate, is_terminal)}
    wanted |= {candidate.id: candidate for candidate in named}
    return sorted(
        (c for c in wanted.values() if c.id not in told and c.provider_ref is not None), key=lambda found: found.id
    )


def unnamed(in_range: Iterable[Candidate]) -> list[Candidate]:
    """Those that nobody can be asked about: a create call of ours left no answer that names them."""
    return [found for found in in_range if found.provider_ref is None and found.state is None]
