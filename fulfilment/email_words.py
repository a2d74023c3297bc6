"""What an effect is called in a mail, what it means, and what whoever reads that should do."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Words:
    """`begins` and `over` follow the account's name in a subject; the others are whole sentences."""

    begins: str
    over: str = "is over"
    means: str = "The effect is owed to this sink."
    do: str = "Look at the page below."


#: By statemachine.phases.Alarm.
ALARMS: Final = {
    "silent": Words(
        "is silent",
        "is silent no more",
        "No verified delivery came for longer than is plausible. Payments are asked about meanwhile, so that they are "
        "known later and not lost.",
        "Look at the provider's status page and whether our URL is still registered there, then at the rejected "
        "deliveries (receipted rejected list). If several accounts are silent at once, look at the way in: DNS, the "
        "proxy, the certificate (receipted doctor).",
    ),
    "push_loss": Words(
        "loses pushes",
        "loses no more pushes than it may",
        "Changes are found by asking that no webhook or callback ever told of. Payments are known later, and questions "
        "use up the budget.",
        "Ask the provider for its delivery log, and see receipted push-quality for which event it is.",
    ),
    "unverified": Words(
        "has every delivery rejected",
        "has its deliveries verified again",
        "Deliveries name payments that are known here, and none of them can be verified: most likely the provider "
        "signs with another key, or a clock is wrong. What was rejected is kept in quarantine.",
        "Add the provider's new key beside the old one (or set the clock), restart, and redeem what is in quarantine: "
        "receipted rejected redeem.",
    ),
    "drift": Words(
        "has drifted",
        "has drifted no more",
        "A reconciliation found what no delivery and no answer had told. What it found is recorded.",
        "Read the report: receipted reconciliations show. Then ask the provider why nothing was sent.",
    ),
    "unreachable": Words(
        "cannot be asked",
        "can be asked again",
        "The provider's API answers no question, so that only what it sends by itself is known. Payments that it "
        "does not tell of wait.",
        "Look at the provider's status page, then at this service's way out: DNS, proxy, firewall. It goes on by "
        "itself as soon as a question is answered.",
    ),
    "dead_letters": Words(
        "has dead messages or effects",
        "has no dead message or effect left",
        "Something was tried as often as configured, and was given up: what a provider said is not applied, or a sink "
        "was not told.",
        "See receipted inbox list --status dead and receipted outbox list --status dead for why; mend that, then "
        "replay or redrive them.",
    ),
}

#: By what follows the subject in an effect's name.
ENDINGS: Final = {
    "review_required": Words(
        "needs review",
        means="A person must decide about this payment. Where money is in doubt, fulfilment is withheld until then.",
        do="Read the payment's page, ask the provider where that is needed, and resolve it with a reason.",
    ),
    "review_closed": Words("needs review", "needs no review any more"),
    "paid": Words("is paid", means="The money is yours.", do="Fulfil, once for each payment."),
    "settled": Words("is settled", means="The money has reached your bank.", do="Nothing, unless you book it."),
    "failed": Words("has failed", means="It ended without money.", do="Nothing, unless the payer asks."),
    "cancelled": Words("is cancelled", means="It was withdrawn before it was paid.", do="Nothing."),
    "expired": Words("has expired", means="It was not paid in time.", do="Nothing, unless the payer asks."),
    "refunded": Words("is refunded", means="It was paid, and given back.", do="Take back what was fulfilled."),
}
