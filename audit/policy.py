"""From hits to one verdict; every number in it comes from the profile.

The order of the questions matters. A contradicted base fails, whatever else. Findings that weigh decide next, even
where coverage was low: what was measured was measured. Only then does doubt count, and it turns a pass into
``inconclusive``: low coverage, an unverified base and a broken detector can never pass.
"""

from collections.abc import Sequence

from audit.evidence import Hit
from audit.rates import upper_bound
from audit.records import Outcome, Verdict
from audit.thresholds import Profile
from scanner.records import Coverage, Lineage

CARD_ALONE = "card alone"
"""``Verdict.policy`` of a report on a card without its weights: claims were counted, no threshold decided."""


def decide(
    hits: Sequence[Hit],
    coverage: Coverage | None,
    lineage: Lineage,
    profile: Profile,
    notes: Sequence[str] = (),
    *,
    doubts: Sequence[str] = (),
    calibrated: bool = True,
    accepted_base: bool = False,
) -> Verdict:
    """Weigh the hits against what was read.

    Args:
        hits: of the rules that weigh; a hit without a finding, or with an accepted one, raises the score, never the
            outcome.
        coverage: of the comparison, None when nothing was compared.
        lineage: whose status decides before anything else.
        profile: holds ``policy.review_score``, ``policy.fail_score`` and ``policy.least_coverage``.
        notes: sentences for the reader that change nothing.
        doubts: sentences that forbid a pass.
        calibrated: true when the profile's clean bank holds models of this type.
        accepted_base: the contradicted base itself is accepted; it then no longer fails, and what was not compared
            against it keeps the verdict from passing.
    """
    score = max((hit.score for hit in hits), default=0.0)
    doubts = (*_doubts(coverage, lineage, profile), *doubts)
    found = [hit for hit in hits if hit.finding is not None and hit.finding.suppression is None]
    review, fail = profile.value("policy.review_score"), profile.value("policy.fail_score")
    reached = max((hit.score for hit in found), default=0.0)
    outcome: Outcome
    if (lineage.status == "contradicted" and not accepted_base) or reached >= fail:
        outcome = "fail"
    elif reached >= review:
        outcome = "review"
    else:
        outcome = "inconclusive" if doubts else "pass"
    reasons = [hit.finding.fingerprint for hit in found if hit.finding and hit.score >= review]
    comparable = calibrated and coverage is not None and lineage.status == "verified"
    return Verdict(
        outcome=outcome,
        score=score,
        false_positive_rate=profile.false_positive_rate(score) if comparable else None,
        reasons=tuple(dict.fromkeys(reasons)),
        policy=profile.id,
        calibration=_calibration(profile, score) if comparable else "",
        notes=(*doubts, *notes),
    )


def _doubts(coverage: Coverage | None, lineage: Lineage, profile: Profile) -> tuple[str, ...]:
    """What keeps this audit from ever passing."""
    least = profile.value("policy.least_coverage")
    found = []
    if lineage.base is None:
        found.append("No base is declared or given, so nothing was compared.")
    elif lineage.status == "unverified":
        found.append("The declared base could not be verified, so the changes against it were not judged.")
    if lineage.base is not None and coverage is None:
        found.append("The weights were not compared.")
    elif coverage is not None and coverage.fraction < least and lineage.status == "contradicted":
        found.append("The weights were compared until they refuted the declared base, and no further.")
    elif coverage is not None and coverage.fraction < least:
        found.append(
            f"{100 * coverage.fraction:.1f} % of the parameters were compared; a conclusion needs {100 * least:.0f} %."
        )
    unread = [skip for skip in (coverage.skipped if coverage else ()) if skip.unread]
    if unread:
        more = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
        found.append(f"Weights that belong to the model were not read: {unread[0].what}{more}.")
    return tuple(found)


def _calibration(profile: Profile, score: float) -> str:
    """What the quoted rate was measured on, with n and its 95 % upper bound."""
    if not profile.clean_scores:
        return ""
    count = sum(1 for clean in profile.clean_scores if clean >= score)
    total = len(profile.clean_scores)
    bound = upper_bound(count, total)
    return (
        f"{profile.calibration}; {count} of n = {total} score at least as high, which makes the estimate "
        f"({count} + 1) / ({total} + 1); 95 % upper bound {100 * bound:.1f} %"
    )
