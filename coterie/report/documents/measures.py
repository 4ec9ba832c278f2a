"""The technical measures of a run, as security sections of several documents list them; and what is missing of them."""

from __future__ import annotations

from coterie.report import reading
from coterie.report.documents.common import ORGANISATION, figure
from coterie.report.documents.facts import Facts
from coterie.report.documents.words import Strong, Text, marked, prose, say


def technical(facts: Facts) -> tuple[Text, ...]:
    """What the software did, and where it did nothing it says so. The last point is for people."""
    return (
        _where_data_are(facts),
        _aggregation(facts),
        _noise(facts),
        *_limits(facts),
        ("Every file of the run folder is bound by a signed manifest (Ed25519), checked by whoever opens it.",),
        (ORGANISATION,),
    )


def _where_data_are(facts: Facts) -> Text:
    if facts.simulation:
        return prose(
            Strong("Simulation."),
            " One process held the logs of all clients: what is described of clients that keep their logs was computed "
            "so, and did not protect them from that process.",
        )
    if facts.result.get("scope") == "federation":
        return prose(
            "Logs stay where they are. Each party computes at home, and sends sums over its users; what leaves is "
            "written to a log of its own first, and its private state is encrypted at rest.",
        )
    return ("Where the logs were held is not stated.",)


def _aggregation(facts: Facts) -> Text:
    if facts.card is None:
        return ("How sums were protected on their way is not stated.",)
    return marked(facts.card.sees[0])


def _noise(facts: Facts) -> Text:
    if facts.simulated_noise:
        return (Strong("No differential privacy:"), " the noise was simulated, and protects nobody.")
    if facts.epsilon is None:
        return (
            Strong("No differential privacy."),
            " Sums and model carry no noise: whoever sees them can learn about single people. They are not anonymous.",
        )
    privacy = facts.privacy
    return say(
        "Differential privacy: {noise} noise on every sum, epsilon {epsilon} at delta {delta} for {unit}; spent so far "
        "by this run {spent}.",
        noise=str(privacy.get("noise")),
        epsilon=figure(facts.epsilon),
        delta=figure(reading.known(privacy.get("delta")), "not stated"),
        unit=unit(facts),
        spent=figure(reading.known(privacy.get("epsilon_spent")), "not stated"),
    )


def _limits(facts: Facts) -> list[Text]:
    """Bounds that a plan, a ledger and a policy keep."""
    found: list[Text] = []
    if (fewest := facts.privacy.get("min_clients") or 1) > 1:
        found.append((f"No sum is taken over fewer than {reading.count(fewest)} clients.",))
    if facts.account_name is not None:
        found.append(prose(
            "A ledger reserves what a sum will cost before it is taken, and refuses what would exceed the account's "
            "limit.",
        ))  # fmt: skip
    if facts.policy is not None:
        policy = facts.policy
        found.append(
            say(
                "This party's own policy, which its node keeps whatever it is asked: at most epsilon {total} for life "
                "and {month} in 30 days, at least {clients} known organisations in a sum and {users} users of its own, "
                "{approval}.",
                total=str(policy.max_epsilon_total),
                month=str(policy.max_epsilon_month),
                clients=policy.min_clients,
                users=policy.min_own_users,
                approval="a person approves each training" if policy.approval == "person" else "approved by rule",
            )
        )
    return found


def unit(facts: Facts) -> str:
    """Whom the promise is about."""
    several = facts.privacy.get("max_clients_per_user") or 1
    if facts.privacy.get("unit") is None:
        return "a unit that is not stated"
    if several > 1:
        return f"each person at up to {several} clients"
    return "each person at one client; who is at two clients counts twice"
