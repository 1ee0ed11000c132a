"""Names the relation once everything has been compared."""

from scanner.records import DriftFacts, Relation


def settled_relation(relation: Relation, drift: DriftFacts | None) -> Relation:
    """Return ``identical`` when every parameter of the candidate was compared and none differs, else ``relation``.

    ``relation`` is what ``check_descent`` returned. A copy with added rows, an own head, anything unread or any value
    that is not finite is no identical copy.
    """
    if drift is None or not drift.tensors or drift.added_rows:
        return relation
    whole = drift.coverage.parameters_compared == drift.coverage.parameters_total
    same = all(t.changed == 0 and t.nonfinite == 0 and t.base_nonfinite == 0 for t in drift.tensors)
    return "identical" if whole and same else relation
