"""A delivery that was handed straight to the intake, and is answered as soon as its commit is known."""

from collections.abc import Callable

import msgspec

from storage.inbox import Recorded
from storage.intake import Arrival, Outcome

#: Sends a status and a body.
Answer = Callable[[int, bytes], None]

#: Notes the account and the id of a request, and what became of it.
Note = Callable[[str, str, Outcome], None]


class Taken:
    """A waiter of receiver.writer.GroupWriter. The id of the request is that of its message."""

    __slots__ = ("_answer", "_arrival", "_note")

    def __init__(self, answer: Answer, arrival: Arrival, note: Note) -> None:
        self._answer: Answer | None = answer
        self._arrival = arrival
        self._note = note

    def settle(self, outcome: Outcome) -> None:
        """See receiver.writer.Waiter."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        request_id = self._arrival.id
        if isinstance(outcome, Recorded):
            answer(200, b'{"received":true,"id":"%b"}' % outcome.id.encode())
        else:
            answer(outcome.status, msgspec.json.encode(outcome.as_json(request_id)))
        self._note(self._arrival.account, request_id, outcome)
