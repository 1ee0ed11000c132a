"""One finding per tensor: an edit shows in several statistics at once, and a reader needs it told once."""

from collections.abc import Sequence
from dataclasses import replace

from audit.evidence import Hit
from audit.records import SEVERITIES, Finding

PREFERRED = ("HA201", "HA301", "HA302", "HA305", "HA307", "HA403", "HA401", "HA402", "HA501", "HA502", "HA503")
"""Which rule tells, among those that are equally severe: the plainest words first."""


def one_per_tensor(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """Keep one finding of the calibrated rules per tensor; the others lend it their main measurement.

    Hits keep their scores and their order. Exact facts and findings without a tensor stay as they are.
    """
    groups: dict[str, list[Hit]] = {}
    for hit in hits:
        if (tensor := _tensor(hit)) is not None:
            groups.setdefault(tensor, []).append(hit)
    told = {id(_merged_into(group)): group for group in groups.values()}
    merged: list[Hit] = []
    for hit in hits:
        tensor = _tensor(hit)
        if tensor is None:
            merged.append(hit)
        elif id(hit) in told and hit.finding is not None:
            merged.append(replace(hit, finding=_with_measurements(hit.finding, told[id(hit)])))
        else:
            merged.append(replace(hit, finding=None))
    return tuple(merged)


def _tensor(hit: Hit) -> str | None:
    """The tensor of a finding that can be merged."""
    if hit.finding is None or hit.value is None or hit.rule_id not in PREFERRED:
        return None
    return hit.finding.locations[0].tensor


def _merged_into(group: Sequence[Hit]) -> Hit:
    return min(group, key=_order)


def _order(hit: Hit) -> tuple[int, int, float]:
    assert hit.finding is not None
    return -SEVERITIES.index(hit.finding.severity), PREFERRED.index(hit.rule_id), -hit.score


def _with_measurements(finding: Finding, group: Sequence[Hit]) -> Finding:
    """The finding with the first measurement of every other rule that saw the same tensor."""
    others = {
        hit.rule_id: replace(hit.finding.measurements[0], name=f"{hit.rule_id}: {hit.finding.measurements[0].name}")
        for hit in group
        if hit.finding is not None and hit.rule_id != finding.rule_id
    }
    return replace(finding, measurements=(*finding.measurements, *(others[rule] for rule in sorted(others))))
