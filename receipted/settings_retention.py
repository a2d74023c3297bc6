"""The settings of retention: nothing is thrown away unless one of them says so."""

from typing import Literal

from pydantic import Field

from receipted.settings_accounts import Section
from storage.partitions import Period
from storage.retention import Rules
from storage.types import RetentionRule


class RetentionSettings(Section):
    """How long what is kept is kept, and how PostgreSQL's tables are cut by time."""

    partition: Literal["month", "week", "day"] = Field(
        "month", description="how long one of PostgreSQL's time partitions lasts: month, week or day"
    )
    bodies_after_days: int | None = Field(
        None, ge=1, description="days after which a message's body is emptied, where nothing needs it any more"
    )
    attempts_after_days: int | None = Field(None, ge=1, description="days after which delivery attempts go")
    inbox_after_days: int | None = Field(
        None, ge=30, description="days after which whole messages go, by partition; on PostgreSQL alone"
    )
    history_after_days: int | None = Field(
        None, ge=30, description="days after which transitions go, by partition; on PostgreSQL alone"
    )
    known_after_days: int | None = Field(
        None, ge=30, description="days after which a delivery that comes again is a new message"
    )
    rejected_after_days: int | None = Field(None, ge=1, description="days after which rejected deliveries go")
    reconciliations_after_days: int | None = Field(
        None, ge=1, description="days after which reports of reconciliations go, but for each account's last"
    )
    detached: Literal["keep", "drop"] = Field(
        "keep", description="what becomes of a partition that was detached: keep it as a table, or drop it"
    )
    rows_per_second: float = Field(1000, gt=0, le=100_000, description="rows that retention looks at in a second")
    batch: int = Field(500, ge=1, le=10_000, description="rows of one transaction of it")

    def period(self) -> Period:
        """How long a partition lasts."""
        return Period(self.partition)

    def rules(self) -> Rules:
        """What may go; a rule that is not set is not there."""
        days = {rule: getattr(self, f"{rule.value}_after_days") for rule in RetentionRule}
        return Rules(
            {rule: after for rule, after in days.items() if after is not None},
            drops=self.detached == "drop",
            batch=self.batch,
            rows_per_second=self.rows_per_second,
        )
