"""A span as it is told: over, with its ids and times known. Nothing in it is a payload, a secret or a person's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from receipted.tracing.ids import Remote

Kind = Literal["server", "client", "producer", "internal"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was done, and where in which trace."""

    name: str
    kind: Kind
    trace_id: int
    span_id: int
    parent_id: int | None  #: None: the trace begins with it
    began_at: datetime
    ended_at: datetime
    attributes: Mapping[str, str | int | float]
    error: str | None = None  #: a code of ours, where it failed
    link: Remote | None = None  #: what caused it in somebody else's trace


#: Tells of a span; never waits, and raises nothing.
Emit = Callable[[Span], None]
