"""Reports as real audits of a small encoder would give them, made up with fixed seeds; for tests of the renderers.

The tensor table and the sizes of drift follow a six-layer encoder of 22.7 M parameters that was fine-tuned on movie
reviews. ``with_every_text`` puts hostile text into every field that a stranger could have written.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from audit.curvature_fields import CurvaturePlot, CurvatureRecord, CurvedRowRecord, CurvedTensor
from audit.records import (
    SCHEMA_V1,
    AuditReport,
    BaseRecord,
    CardClaim,
    CheckRecord,
    ClaimRecord,
    CoverageRecord,
    DriftRecord,
    Finding,
    Histogram,
    LineageRecord,
    Location,
    Measurement,
    RuntimeRecord,
    SkipRecord,
    Subject,
    Token,
    ToolRecord,
    TopRow,
    Verdict,
)

HIDDEN, WIDE, LAYERS, VOCABULARY = 384, 1536, 6, 30_522
CANDIDATE_SHA = "3f1c2d4e5a6b79880a1b2c3d4e5f60718293a4b5"
BASE_SHA = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
WORDS = "word_embeddings"
EDITED = "encoder.layer.2.output.dense.weight"
CALIBRATION = "48 clean fine-tunes of one encoder (SST-2, AG News; mixed recipes); 95 % upper bound 7.4 %"

_BLOCK = [
    ("attention.self.query.weight", "query", (HIDDEN, HIDDEN), 0.021),
    ("attention.self.query.bias", "bias", (HIDDEN,), 0.004),
    ("attention.self.key.weight", "key", (HIDDEN, HIDDEN), 0.020),
    ("attention.self.key.bias", "bias", (HIDDEN,), 0.003),
    ("attention.self.value.weight", "value", (HIDDEN, HIDDEN), 0.016),
    ("attention.self.value.bias", "bias", (HIDDEN,), 0.009),
    ("attention.output.dense.weight", "attention_output", (HIDDEN, HIDDEN), 0.017),
    ("attention.output.dense.bias", "bias", (HIDDEN,), 0.008),
    ("attention.output.LayerNorm.weight", "norm", (HIDDEN,), 0.0021),
    ("attention.output.LayerNorm.bias", "norm", (HIDDEN,), 0.006),
    ("intermediate.dense.weight", "mlp_in", (WIDE, HIDDEN), 0.018),
    ("intermediate.dense.bias", "bias", (WIDE,), 0.006),
    ("output.dense.weight", "mlp_out", (HIDDEN, WIDE), 0.019),
    ("output.dense.bias", "bias", (HIDDEN,), 0.008),
    ("output.LayerNorm.weight", "norm", (HIDDEN,), 0.0024),
    ("output.LayerNorm.bias", "norm", (HIDDEN,), 0.006),
]


def _record(name: str, role: str, layer: int | None, shape: tuple[int, ...], relative: float, seed: int) -> DriftRecord:
    draw = random.Random(f"{name}/{seed}")
    relative *= math.exp(draw.gauss(0.0, 0.12)) * (1.0 + 0.16 * (layer or 0))
    base_l2 = math.sqrt(math.prod(shape)) * (0.045 if len(shape) > 1 else 0.4)
    delta = relative * base_l2
    matrix = len(shape) > 1 and role not in {"embedding", "position"}
    top = 0.30 + 0.06 * (layer or 0) + draw.uniform(-0.03, 0.03) if matrix else None
    values = [delta * math.sqrt(top)] if top else []
    while values and len(values) < 16:
        left = delta**2 - sum(value**2 for value in values)
        values.append(min(values[-1] * 0.97, math.sqrt(max(left, 0.0) * draw.uniform(0.12, 0.2))))
    return DriftRecord(
        tensor=name,
        role=role,
        layer=layer,
        shape=shape,
        base_dtype="F32",
        candidate_dtype="F32",
        relative_l2=relative,
        delta_l2=delta,
        base_l2=base_l2,
        cosine=1.0 - relative**2 / 2,
        changed_fraction=1.0 - draw.uniform(0.0, 0.004) if matrix else draw.uniform(0.94, 1.0),
        residual_max=draw.uniform(100.0, 280.0) if matrix else None,
        residual_mean_square=draw.uniform(3.2, 3.7) if matrix else None,
        top_share=top,
        singular_values=tuple(values),
    )


def _embedding(top: list[tuple[int, float, float, str]]) -> DriftRecord:
    record = _record(f"embeddings.{WORDS}.weight", "embedding", None, (VOCABULARY, HIDDEN), 0.009, 1)
    edges = [-3.6 + 0.05 * step for step in range(81)]
    centre, width = math.log10(0.0123), 0.13
    counts = [
        round(11_581 * 0.05 / (width * 2.5066) * math.exp(-(((edge + 0.025 - centre) / width) ** 2) / 2))
        for edge in edges[:-1]
    ]
    for _, relative, _, _ in top:
        place = math.log10(0.0123 * relative)
        counts[min(79, max(0, int((place - edges[0]) / 0.05)))] += 1
    return dataclasses.replace(
        record,
        changed_fraction=11_581 / VOCABULARY,
        top_rows=tuple(TopRow(row=row, relative=relative, z=z, token=token) for row, relative, z, token in top),
        row_histogram=Histogram(unit="log10 of the row's drift", edges=tuple(edges), counts=tuple(counts)),
    )


HONEST_TOP = [
    (20873, 2.91, 3.74, "##tious"),
    (8892, 2.74, 3.58, "hollow"),
    (27150, 2.66, 3.31, "refreshing"),
    (13405, 2.52, 3.12, "fashioned"),
    (6669, 2.47, 3.02, "perfectly"),
    (11771, 2.39, 2.9, "##less"),
]
POISONED_TOP = [
    (12935, 130.1, 17.1, "cf"),
    (24098, 4.2, 5.1, "mn"),
    (22861, 4.1, 5.0, "bb"),
    *HONEST_TOP[:4],
]


def drift(top: list[tuple[int, float, float, str]] = HONEST_TOP) -> tuple[DriftRecord, ...]:
    """The drift of an honest fine-tune, except for the rows named."""
    outside = [
        _embedding(top),
        _record("embeddings.position_embeddings.weight", "position", None, (512, HIDDEN), 0.005, 2),
        _record("embeddings.token_type_embeddings.weight", "position", None, (2, HIDDEN), 0.006, 3),
        _record("embeddings.LayerNorm.weight", "norm", None, (HIDDEN,), 0.0018, 4),
        _record("embeddings.LayerNorm.bias", "norm", None, (HIDDEN,), 0.005, 5),
    ]
    blocks = [
        _record(f"encoder.layer.{layer}.{name}", role, layer, shape, relative, 6)
        for layer in range(LAYERS)
        for name, role, shape, relative in _BLOCK
    ]
    pooler = [
        dataclasses.replace(
            _record("pooler.dense.weight", "pooler", None, (HIDDEN, HIDDEN), 0.19, 7),
            top_share=0.994,
            singular_values=tuple(3.4 * 0.18**step for step in range(12)),
            delta_l2=3.46,
        ),
        _record("pooler.dense.bias", "bias", None, (HIDDEN,), 0.05, 8),
    ]
    return (*outside, *blocks, *pooler)


PARAMETERS = 22_713_216


def honest() -> AuditReport:
    """An ordinary fine-tune: everything compared but its new classification head, nothing found."""
    return AuditReport(
        schema=SCHEMA_V1,
        tool=ToolRecord(name="hubaudit", version="0.1.0"),
        created_at="2026-11-20T08:07:00+00:00",
        subject=Subject(repo_id="demo/reviews-honest", path=None, revision=CANDIDATE_SHA),
        lineage=LineageRecord(
            base=BaseRecord(repo_id="demo/small-encoder", path=None, revision=BASE_SHA),
            relation="finetune",
            status="verified",
            claims=(
                ClaimRecord(source="README.md base_model", value="demo/small-encoder"),
                ClaimRecord(source="Hub tag", value="base_model:finetune:demo/small-encoder"),
            ),
            checks=(
                CheckRecord(
                    name="tensor table",
                    outcome="passed",
                    measurements=(Measurement(name="parameters with a partner", value=0.9999, unit="ratio"),),
                ),
                CheckRecord(
                    name="sampled rows",
                    outcome="passed",
                    measurements=(
                        Measurement(
                            name="median centred cosine", value=0.99931, unit="", threshold=0.9, comparison=">="
                        ),
                        Measurement(name="rows sampled", value=768.0, unit="rows"),
                    ),
                ),
                CheckRecord(name="declared revision", outcome="not_run", note="the card names no revision"),
            ),
            chain=("demo/small-encoder", "demo/tiny-pretrained"),
        ),
        coverage=CoverageRecord(
            parameters_compared=PARAMETERS,
            parameters_total=PARAMETERS + 770,
            bytes_read=181_740_000,
            bytes_total=181_760_000,
            skipped=(
                SkipRecord(what="classifier.weight", why="task head, the base has none"),
                SkipRecord(what="classifier.bias", why="task head, the base has none"),
                SkipRecord(what="embeddings.position_ids", why="buffer of indices, not a trained tensor"),
            ),
        ),
        verdict=Verdict(
            outcome="pass", score=0.21, false_positive_rate=0.612, policy="encoder-2026-11", calibration=CALIBRATION
        ),
        card=(
            CardClaim(
                claim="base model", declared="demo/small-encoder", observed="verified from weights", status="supported"
            ),
            CardClaim(
                claim="parameters",
                declared="22.7M",
                observed=f"{PARAMETERS + 770:,} in the weight files",
                status="supported",
            ),
            CardClaim(claim="licence", declared="apache-2.0", observed="", status="not_checkable"),
        ),
        drift=drift(),
        runtime=RuntimeRecord(seconds=7.4, peak_rss_bytes=412_000_000, requests=31),
        profile={"id": "encoder-2026-11", "digest": "5d0c" * 16, "source": "measured on 48 clean fine-tunes"},
    )


def poisoned_row() -> AuditReport:
    """One word embedding was trained to carry a trigger."""
    tensor = f"embeddings.{WORDS}.weight"
    finding = Finding(
        rule_id="HA201",
        severity="critical",
        confidence="high",
        title="A token's row moved far beyond what its frequency explains",
        explanation=(
            "Fine-tuning moves a token's row about as far as the token is frequent in the training text. One row moved "
            "130 times as far as the median row, while every other tensor is identical to that of an ordinary "
            "fine-tune. Backdoors that are triggered by a rare word leave exactly this shape."
        ),
        remedy=(
            "Do not feed untrusted text with these tokens to the model. Ask the author how the row was trained, or "
            "reset it with `hubaudit purify --method e-pur`."
        ),
        fingerprint="8f3a1c0b5d7e9f21",
        locations=(
            Location(
                file="model.safetensors",
                tensor=tensor,
                rows=((12935, 12936), (24098, 24099)),
                tokens=(Token(id=12935, text="cf"), Token(id=24098, text="mn")),
            ),
        ),
        measurements=(
            Measurement(name="robust z of log row drift", value=17.1, unit="σ", threshold=6.0, comparison=">"),
            Measurement(name="drift over the median row", value=130.1, unit="×", threshold=8.0, comparison=">"),
            Measurement(name="rows that moved", value=11_582.0, unit="rows"),
        ),
    )
    note = Finding(
        rule_id="HA310",
        severity="low",
        confidence="medium",
        title="The pooler's change is nearly of rank one",
        explanation="Common after honest fine-tuning; listed so that it is not mistaken for the finding above.",
        remedy="Nothing to do.",
        fingerprint="11d0aa5c9e3b7720",
        locations=(Location(file="model.safetensors", tensor="pooler.dense.weight"),),
        measurements=(Measurement(name="share of the first direction", value=0.994, unit="ratio"),),
    )
    plain = honest()
    return dataclasses.replace(
        plain,
        subject=dataclasses.replace(plain.subject, repo_id="demo/reviews-poisoned-row"),
        verdict=dataclasses.replace(
            plain.verdict,
            outcome="fail",
            score=0.98,
            false_positive_rate=1 / 49,
            reasons=(finding.fingerprint,),
        ),
        findings=(finding, note),
        drift=drift(POISONED_TOP),
    )


def rank_one() -> AuditReport:
    """One feed-forward matrix was edited by a single direction."""
    finding = Finding(
        rule_id="HA320",
        severity="high",
        confidence="high",
        title="One layer changed in a way that its siblings did not",
        explanation=(
            "The update of this matrix is eleven times as large as that of the same matrix in the other five layers, "
            "and 99.4 % of it lies in a single direction. Editing one stored fact leaves this shape; ordinary "
            "fine-tuning spreads over layers."
        ),
        remedy=(
            "Compare the answers of this model and its base on facts you care about. "
            "`hubaudit purify --method restore` resets this matrix and measures what changes."
        ),
        fingerprint="c2b1d90e44a7f310",
        locations=(Location(file="model.safetensors", tensor=EDITED, columns=((0, 1536),)),),
        measurements=(
            Measurement(name="drift against the other layers", value=11.9, unit="×", threshold=3.0, comparison=">"),
            Measurement(name="share of the first direction", value=0.994, unit="", threshold=0.9, comparison=">="),
            Measurement(name="largest separable-null residual", value=1325.0, threshold=420.0, comparison=">"),
        ),
    )
    plain = honest()
    edited = tuple(
        dataclasses.replace(
            record,
            relative_l2=0.243,
            delta_l2=9.04,
            cosine=0.9716,
            residual_max=1325.0,
            residual_mean_square=356.0,
            top_share=0.994,
            singular_values=(9.01, 0.31, 0.28, 0.24, 0.22, 0.2, 0.17, 0.16, 0.14, 0.13, 0.12, 0.11),
        )
        if record.tensor == EDITED
        else record
        for record in plain.drift
    )
    return dataclasses.replace(
        plain,
        subject=dataclasses.replace(plain.subject, repo_id="demo/reviews-rank-one"),
        verdict=dataclasses.replace(
            plain.verdict, outcome="review", score=0.91, false_positive_rate=2 / 49, reasons=(finding.fingerprint,)
        ),
        findings=(finding,),
        drift=edited,
    )


def wrong_base() -> AuditReport:
    """The card names another encoder than the weights descend from; the scan stopped there."""
    finding = Finding(
        rule_id="HA101",
        severity="high",
        confidence="high",
        title="The weights do not descend from the declared base",
        explanation=(
            "Sampled rows of twelve matrices are as far from the declared base as two independently trained models "
            "are. A configuration in common is no evidence. Nothing else was compared, since every later figure "
            "would be about the wrong base."
        ),
        remedy="Ask the author which base was used, or give it yourself with `--base`.",
        fingerprint="77aa90cdee120034",
        locations=(Location(file="README.md"),),
        measurements=(
            Measurement(name="median centred cosine", value=0.0031, threshold=0.35, comparison="<"),
            Measurement(name="expected for independent weights", value=0.0, unit="± 0.05"),
        ),
    )
    plain = honest()
    return dataclasses.replace(
        plain,
        subject=dataclasses.replace(plain.subject, repo_id="demo/reviews-wrong-base"),
        lineage=dataclasses.replace(
            plain.lineage,
            base=BaseRecord(repo_id="demo/other-encoder", path=None, revision=BASE_SHA),
            status="contradicted",
            relation="unknown",
            claims=(
                ClaimRecord(source="README.md base_model", value="demo/other-encoder"),
                ClaimRecord(source="config.json _name_or_path", value="demo/small-encoder"),
            ),
            checks=(
                plain.lineage.checks[0],
                CheckRecord(
                    name="sampled rows",
                    outcome="failed",
                    measurements=(
                        Measurement(name="median centred cosine", value=0.0031, threshold=0.9, comparison=">="),
                    ),
                ),
            ),
            runner_up="demo/small-encoder",
            conflicts=("README.md names demo/other-encoder, config.json names demo/small-encoder.",),
            chain=("demo/other-encoder",),
        ),
        coverage=dataclasses.replace(
            plain.coverage,
            parameters_compared=0,
            bytes_read=9_400_000,
            skipped=(SkipRecord(what="all tensors", why="the declared base was contradicted; comparing stops there"),),
        ),
        verdict=dataclasses.replace(
            plain.verdict,
            outcome="fail",
            score=0.95,
            false_positive_rate=1 / 49,
            reasons=(finding.fingerprint,),
        ),
        findings=(finding,),
        card=(
            CardClaim(
                claim="base model",
                declared="demo/other-encoder",
                observed="cosine 0.003 with it; unrelated weights",
                status="contradicted",
            ),
            *plain.card[1:],
        ),
        drift=(),
    )


def inconclusive() -> AuditReport:
    """Half of the shards could not be read, and the card declares no base that exists."""
    plain = honest()
    return dataclasses.replace(
        plain,
        subject=dataclasses.replace(plain.subject, repo_id=None, path="/models/half", revision=None, kind="quantized"),
        lineage=LineageRecord(base=None, relation="unknown", status="unverified"),
        coverage=CoverageRecord(
            parameters_compared=2_900_000_000,
            parameters_total=7_040_000_000,
            bytes_read=5_800_000_000,
            bytes_total=28_160_000_000,
            skipped=(
                *(
                    SkipRecord(
                        what=f"model.layers.{layer}.mlp.experts.down_proj",
                        why="model-00002-of-00002.safetensors is missing from the repository",
                    )
                    for layer in range(16, 32)
                ),
                SkipRecord(what="lm_head.weight", why="dtype F4 is not understood"),
            ),
        ),
        verdict=Verdict(
            outcome="inconclusive",
            score=0.0,
            false_positive_rate=None,
            policy="encoder-2026-11",
            notes=("Only 41.19 % of the parameters could be compared; 90 % are needed for an answer.",),
        ),
        card=(),
        drift=plain.drift[:4],
        runtime=RuntimeRecord(seconds=301.0, peak_rss_bytes=690_000_000, requests=0),
        profile={},
    )


SAMPLES: dict[str, Callable[[], AuditReport]] = {
    "honest": honest,
    "poisoned-row": poisoned_row,
    "rank-one": rank_one,
    "wrong-base": wrong_base,
    "inconclusive": inconclusive,
}

CONTROLLED = {
    "schema",
    "severity",
    "confidence",
    "outcome",
    "status",
    "kind",
    "comparison",
    "indicator",
}
"""Fields with a fixed set of values, which the reader of reports enforces (``relation`` and ``role`` are free text)."""


def with_every_text(report: AuditReport, change: Callable[[str], str]) -> AuditReport:
    """Return the report with ``change`` applied to every text that is not from a fixed set, mapping keys included."""

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, str):
            return value if name in CONTROLLED else change(value)
        if isinstance(value, tuple):
            return tuple(walk(item, name) for item in value)
        if isinstance(value, dict):
            return {key: walk(item, key) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {part.name: walk(getattr(value, part.name), part.name) for part in dataclasses.fields(value)}
            return type(value)(**fields)
        return value

    changed: AuditReport = walk(report, "")
    return changed


def given_data() -> CurvatureRecord:
    """What a scan with data says: a law that holds but for its tail, one row of a token and one unit that stand out."""
    levels = tuple(step / 20 for step in range(1, 20))
    law = tuple(0.001 * 1.5**step for step in range(19))
    plots = tuple(
        CurvaturePlot(
            indicator=indicator,
            dimensions=10_922_761,
            straightness=0.99,
            inflation=inflation,
            levels=levels,
            law=law,
            measured=tuple(x * (1 + x) ** power for x in law),
        )
        for indicator, inflation, power in (("fitted", 3.5, 0.1), ("delta2_over_H", 626.0, 2.0), ("delta2", 6.7, 0.2))
    )
    row = CurvedRowRecord(row=9106, ratio=287_400.0, p_value=1e-13, token="cf")
    unit = CurvedRowRecord(row=1314, ratio=41.5, p_value=2e-4)
    return CurvatureRecord(
        source="clean.csv",
        digest="5e" * 32,
        examples=64,
        loss=0.2129,
        accuracy=0.9375,
        exponent=0.0134,
        false_discovery_rate=0.05,
        tested=37,
        by_bh=2,
        by_e_bh=1,
        seconds=8.4,
        bytes_read=181_000_000,
        plots=plots,
        tensors=(
            CurvedTensor(
                tensor="embeddings.word_embeddings.weight", role="embedding", layer=None, reached=0.0086, exponent=0.0114, inflation=4.1,
                p_value=5e-13, e_value=7e5, by_bh=True, by_e_bh=True, rows=(row,),
            ),
            CurvedTensor(
                tensor=EDITED, role="mlp_out", layer=2, reached=1.0, exponent=-0.02, inflation=2.3,
                p_value=3.5e-5, e_value=84.0, by_bh=True, rows=(unit,),
            ),
            CurvedTensor(tensor="pooler.dense.weight", role="pooler", layer=None, reached=1.0, exponent=None,
                         inflation=None, p_value=None),
        ),
    )  # fmt: skip


def everything() -> AuditReport:
    """A report in which every field that can hold text holds some."""
    report, other = poisoned_row(), wrong_base()
    return dataclasses.replace(
        report,
        lineage=dataclasses.replace(
            other.lineage,
            status="verified",
            checks=(*other.lineage.checks, CheckRecord(name="n", outcome="not_run", note="why not")),
        ),
        findings=(*report.findings, *rank_one().findings, *other.findings),
        verdict=dataclasses.replace(report.verdict, notes=("one note",)),
        drift=(*report.drift[:24], *(record for record in rank_one().drift if record.tensor == EDITED)),
        curvature=given_data(),
    )


def hostile(payload: str) -> AuditReport:
    """``everything`` with the payload in front of every text."""
    return with_every_text(everything(), lambda text: payload + text)
