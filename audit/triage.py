"""What a report says of a scan that read a sample of the weights."""

from audit.evidence import Evidence
from audit.power import stated_power
from audit.records import TriageRecord


def sampling_doubts(evidence: Evidence) -> tuple[str, ...]:
    """The sentence that keeps a sample from passing (docs/decisions/0007); none when everything was to be read."""
    drift = evidence.drift
    if drift is None or drift.sampling is None:
        return ()
    read = f"{100 * drift.coverage.fraction:.2g} % of the parameters"
    return (
        f"Only a sample was read, as --budget asks: nothing found in {read} is not a pass; --full reads everything.",
    )


def triage_record(evidence: Evidence) -> TriageRecord | None:
    """What the report says of a budgeted scan; None for any other."""
    sampling = evidence.drift.sampling if evidence.drift else None
    if sampling is None:
        return None
    return TriageRecord(
        budget_bytes=sampling.budget_bytes,
        escalation_bytes=sampling.escalation_bytes,
        checked_bytes=sampling.checked_bytes,
        planned_bytes=sampling.planned_bytes,
        escalated_bytes=sampling.escalated_bytes,
        escalated=sampling.escalated,
        curtailed=sampling.curtailed,
        identical_tensors=sampling.identical_tensors,
        claimed_tensors=sampling.claimed_tensors,
        power=stated_power(evidence),
    )
