"""Adapters whose factors were computed in some modules and trained in the others: a trace of something put in.

Training starts from random directions (``lora_A`` is drawn, ``lora_B`` zero) and only draws them closer to each other.
A singular value decomposition gives directions that are orthogonal to the last digit. It is how a payload is joined
with a finished adapter without raising its rank, and it is also how adapters are extracted from full models, resized
and merged; those, though, are decomposed as a whole. What a product does is the same either way, so this reads how the
file was written and not what the adapter does: whoever trains the payload in leaves no such trace.
"""

import math
from collections.abc import Iterator, Sequence

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.readings import Reading, abstain, location_of
from audit.records import Finding, Measurement, SkipRecord
from scanner.records import Factors, TensorDrift

REWRITTEN = Rule(id="HA308", title="Some modules of the adapter were computed, the others trained", severity="medium")

_RANDOM_STARTS = (True, None, "gaussian")
"""Of ``init_lora_weights``; the others start from factors that are orthogonal or taken from the base."""


def run(evidence: Evidence) -> Iterator[Hit | SkipRecord]:
    """Judge how the factors of a separate adapter were made."""
    assert evidence.drift is not None
    config = evidence.candidate.adapter_config
    if config is None:
        return  # a whole model has no factors that could have been made one way or another
    if config.get("init_lora_weights", True) not in _RANDOM_STARTS or config.get("peft_type") == "ADALORA":
        yield abstain(REWRITTEN, "the adapter says that its factors did not start at random, or are kept orthogonal")
        return
    judged = [(tensor, tail) for tensor in evidence.drift.tensors if (tail := log_tail(tensor)) is not None]
    if len(judged) < 2:  # one module has nothing to differ from
        yield abstain(REWRITTEN, "fewer than two modules have factors of rank 2 or more")
        return
    bar = -evidence.profile.value(f"{REWRITTEN.id}.log_tail")
    computed = [(tensor, tail) for tensor, tail in judged if tail <= bar]
    if not computed:
        yield Hit(rule_id=REWRITTEN.id, score=0.0)
    else:
        yield _hit(sorted(computed, key=lambda pair: pair[1]), len(judged), bar, evidence)


def log_tail(tensor: TensorDrift) -> float | None:
    """Natural log of the chance that random directions overlap as little as those of both factors; at most 0.

    Both factors' tails are joined as Fisher (1925) does: P(p₁p₂ ≤ q) = q(1 − ln q). None for a tensor that is no
    product, or one of rank 1.
    """
    factors = tensor.spectrum.factors if tensor.spectrum is not None else None
    if factors is None or not (factors.down_pairs and factors.up_pairs):
        return None
    return _joined(factors)


def _joined(factors: Factors) -> float:
    both = _tail(factors.down_overlap, factors.down_pairs) + _tail(factors.up_overlap, factors.up_pairs)
    return both + math.log1p(-both)


def _tail(overlap: float, pairs: int) -> float:
    """Log of P(χ² ≤ x) with as many degrees of freedom as pairs, from above: ln ((x/2)^a / Γ(a + 1)), a = pairs/2."""
    half = max(overlap, 1e-30) / 2
    return min(0.0, pairs / 2 * math.log(half) - math.lgamma(pairs / 2 + 1))


def _hit(computed: Sequence[tuple[TensorDrift, float]], judged: int, bar: float, evidence: Evidence) -> Hit:
    whole = len(computed) == judged
    first, tail = computed[0]
    layers = sorted({tensor.spec.layer for tensor, _ in computed if tensor.spec.layer is not None})
    where = f" (layers {', '.join(map(str, layers))})" if layers and not whole else ""
    if whole:
        explanation = (
            f"The factors of all {judged} modules are orthogonal, as a singular value decomposition leaves them and "
            "training does not: the adapter was extracted, resized or merged. Nothing in it tells what was trained "
            "together."
        )
        remedy = "Ask what it was made from, and look at those sources too."
    else:
        explanation = (
            f"The factors of {len(computed)} of {judged} modules{where} are orthogonal, as a singular value "
            "decomposition leaves them; those of the others lie as training leaves them. So these modules were written "
            "by another process than the rest, most likely afterwards."
        )
        remedy = (
            "Ask why these modules were made another way; otherwise compare the model's behaviour with their factors "
            "set to zero."
        )
    return Hit(
        rule_id=REWRITTEN.id,
        score=0.0 if whole else evidence.profile.value(f"{REWRITTEN.id}.score"),
        finding=Finding(
            rule_id=REWRITTEN.id,
            severity="info" if whole else REWRITTEN.severity,
            confidence="high",
            title="All factors of the adapter were computed" if whole else REWRITTEN.title,
            explanation=explanation,
            remedy=remedy,
            fingerprint=fingerprint(REWRITTEN.id, evidence.candidate.ref.name, first.spec.name),
            locations=tuple(
                location_of(Reading(value=0.0, tensor=tensor))
                for tensor, _ in computed[: int(evidence.profile.value("findings.most"))]
            ),
            measurements=(
                Measurement(
                    name="log of the chance that random directions overlap as little",
                    value=tail,
                    unit="nats",
                    threshold=bar,
                    comparison="<=",
                ),
                Measurement(name="modules computed", value=float(len(computed)), unit="tensors"),
                Measurement(name="modules judged", value=float(judged), unit="tensors"),
            ),
        ),
    )


DETECTOR = Detector(name="adapter_factors", rules=(REWRITTEN,), run=run)
