"""Says which sampled tensors look unusual enough to be read further."""

from dataclasses import replace

from audit.banks import suit
from audit.detectors.token_rows import FEW_ROWS
from audit.evidence import Evidence
from audit.run import run_detectors
from audit.thresholds import Profile


def unusual_tensors(evidence: Evidence) -> tuple[str, ...]:
    """Names of the sampled tensors that come near a threshold, the most telling first.

    Every rule that compares with a review threshold does so at ``triage.escalate_share`` of it, since a sample is
    noisier than the whole; a table of which few rows changed is named however many there are.
    """
    if evidence.drift is None:
        return ()
    sampled = {t.spec.name for t in evidence.drift.tensors if t.spec.sampled}
    evidence = suit(evidence).evidence
    hits = run_detectors(replace(evidence, profile=_watchful(evidence.profile))).hits
    ranked = sorted((hit for hit in hits if hit.finding is not None), key=lambda hit: -hit.score)
    names = (place.tensor for hit in ranked if hit.finding for place in hit.finding.locations)
    return tuple(dict.fromkeys(name for name in names if name in sampled))


def _watchful(profile: Profile) -> Profile:
    share = profile.value("triage.escalate_share")
    values = {name: value * share if name.endswith(".review") else value for name, value in profile.values.items()}
    # How many rows of a table changed is only known once more of it is read.
    return replace(profile, values=values | {f"{FEW_ROWS.id}.rows": float("inf")})
