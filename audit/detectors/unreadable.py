"""What could not be judged: values that are not numbers, weights that were not compared, files that were not read."""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule, fingerprint
from audit.readings import Reading, location_of
from audit.records import Finding, Location, Measurement
from scanner.records import Skip, TensorDrift

NONFINITE = Rule(id="HA601", title="Weights hold values that are not numbers", severity="high")
COVERAGE = Rule(id="HA602", title="Too little of the model was compared", severity="medium", weighs=False)
UNREAD = Rule(id="HA603", title="Weight files in a format that was not read", severity="low", weighs=False)

_WEIGHT_SUFFIXES = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".npy",
)  # fmt: skip


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge non-finite values, coverage and the listing."""
    if evidence.drift is not None:
        for tensor in evidence.drift.tensors:
            if tensor.nonfinite > 0:
                yield _nonfinite(tensor, evidence)
        fraction = evidence.drift.coverage.fraction
        # Against a contradicted base the comparison was broken off on purpose.
        if evidence.lineage.status != "contradicted" and fraction < evidence.profile.value("policy.least_coverage"):
            yield _coverage(fraction, evidence.drift.coverage.skipped, evidence)
    read = {tensor.spec.candidate.file for tensor in evidence.drift.tensors} if evidence.drift else set()
    paths = (entry.path for entry in evidence.candidate.files)
    unread = [path for path in paths if path.lower().endswith(_WEIGHT_SUFFIXES) and path not in read]
    if unread:
        yield _unread(unread, evidence)


def _nonfinite(tensor: TensorDrift, evidence: Evidence) -> Hit:
    inherited = tensor.base_nonfinite >= tensor.nonfinite
    return Hit(
        rule_id=NONFINITE.id,
        score=evidence.profile.value(f"{NONFINITE.id}.score") if not inherited else 0.0,
        finding=Finding(
            rule_id=NONFINITE.id,
            severity="low" if inherited else "high",
            confidence="exact",
            title=NONFINITE.title,
            explanation=(
                f"{tensor.spec.name} holds {tensor.nonfinite} values that are NaN or infinite "
                f"({tensor.base_nonfinite} in the base). They are left out of every statistic, and may make the "
                f"model's output meaningless for some inputs."
            ),
            remedy="Ask the author for intact weights; a broken training run or a damaged file looks so.",
            fingerprint=fingerprint(NONFINITE.id, evidence.candidate.ref.name, tensor.spec.name),
            locations=(location_of(Reading(value=0.0, tensor=tensor)),),
            measurements=(
                Measurement(
                    name="values that are not finite",
                    value=float(tensor.nonfinite),
                    unit="dimensions",
                    threshold=0.0,
                    comparison=">",
                ),
                Measurement(name="the same in the base", value=float(tensor.base_nonfinite), unit="dimensions"),
            ),
        ),
    )


def _coverage(fraction: float, skipped: tuple[Skip, ...], evidence: Evidence) -> Hit:
    least = evidence.profile.value("policy.least_coverage")
    return Hit(
        rule_id=COVERAGE.id,
        score=0.0,
        finding=Finding(
            rule_id=COVERAGE.id,
            severity="medium",
            confidence="exact",
            title=COVERAGE.title,
            explanation=(
                f"{100 * fraction:.1f} % of the parameters were compared with the base, less than the "
                f"{100 * least:.0f} % that a conclusion needs; {len(skipped)} parts were skipped, each with its "
                f"reason."
            ),
            remedy="See the list of what was skipped; --full or another --base may help.",
            fingerprint=fingerprint(COVERAGE.id, evidence.candidate.ref.name, None),
            locations=(Location(file="config.json"),),
            measurements=(
                Measurement(
                    name="share of parameters compared", value=fraction, unit="ratio", threshold=least, comparison="<"
                ),
            ),
        ),
    )


def _unread(paths: list[str], evidence: Evidence) -> Hit:
    return Hit(
        rule_id=UNREAD.id,
        score=0.0,
        finding=Finding(
            rule_id=UNREAD.id,
            severity="low",
            confidence="exact",
            title=UNREAD.title,
            explanation=(
                f"The repository holds {len(paths)} weight file{'s' if len(paths) > 1 else ''} besides the one that "
                f"was compared, in formats that were not read. A loader that prefers them runs other weights than "
                f"those judged here; some of these formats can run code when they are opened."
            ),
            remedy="Load the model from safetensors only, and remove files that nobody needs.",
            fingerprint=fingerprint(UNREAD.id, evidence.candidate.ref.name, None),
            locations=tuple(Location(file=path) for path in paths[: int(evidence.profile.value("findings.most"))]),
            measurements=(Measurement(name="files not read", value=float(len(paths)), unit="files"),),
        ),
    )


DETECTOR = Detector(
    name="unreadable",
    rules=(NONFINITE, COVERAGE, UNREAD),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
