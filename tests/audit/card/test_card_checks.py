"""Claims of the card against the evidence."""

import dataclasses
from typing import Any

import evidence_for
import numpy as np
import pytest
from pico_cases import evidence

from audit.card.checks import CARD_CHECKS
from audit.card.plain import LIMIT, joined, short, words
from audit.evidence import Evidence
from audit.records import CardClaim
from scanner.card import parse_card
from scanner.records import CardFacts, LineageStatus, Relation, RepoFacts


def claims(of: Evidence) -> dict[str, CardClaim]:
    """Every claim by name."""
    return {claim.claim: claim for check in CARD_CHECKS for claim in check(of)}


def with_card(
    text: str = "",
    *,
    front: str = "",
    config: dict[str, Any] | None = None,
    base_front: str = "",
    base_config: dict[str, Any] | None = None,
    status: LineageStatus = "verified",
    relation: Relation = "finetune",
    files: tuple[str, ...] = (),
    base_name: str = "org/base",
) -> Evidence:
    """The honest pico fine-tune under another card."""
    of = evidence()

    def repo(name: str, front: str, text: str, config: dict[str, Any] | None) -> RepoFacts:
        card = parse_card(f"---\n{front}\n---\n{text}") if front or text else CardFacts()
        return evidence_for.repo(name, card=card, config=config, files=files)

    candidate = repo("org/candidate", front, text, {"model_type": "bert"} if config is None else config)
    base = repo(base_name, base_front, "", base_config)
    return dataclasses.replace(
        of,
        candidate=candidate,
        base=base,
        lineage=evidence_for.lineage(candidate, base, status=status, relation=relation),
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [("verified", "supported"), ("contradicted", "contradicted"), ("unverified", "not_checkable")],
)
def test_the_base_is_as_good_as_its_verification(status: LineageStatus, said: str) -> None:
    claim = claims(with_card(front="base_model: org/base", status=status))["base_model"]
    assert (claim.declared, claim.status) == ("org/base", said)
    assert "org/base" in claim.observed


def test_a_base_other_than_the_declared_one_checks_nothing() -> None:
    claim = claims(with_card(front="base_model: org/other"))["base_model"]
    assert (claim.status, "another base" in claim.observed) == ("not_checkable", True)


def test_one_of_several_declared_bases_is_enough() -> None:
    claim = claims(with_card(front="base_model: [org/other, Org/Base]"))["base_model"]
    assert (claim.declared, claim.status) == ("org/other, Org/Base", "supported")


def test_without_a_base_the_claim_stays_open() -> None:
    of = with_card(front="base_model: org/base", status="unverified")
    of = dataclasses.replace(of, base=None, lineage=dataclasses.replace(of.lineage, base=None))
    assert claims(of)["base_model"].status == "not_checkable"
    assert claims(of)["license"].observed == "no licence file either"


@pytest.mark.parametrize(
    ("declared", "measured", "status", "said"),
    [
        ("finetune", "finetune", "verified", "supported"),
        ("quantized", "finetune", "verified", "contradicted"),
        ("finetune", "adapter", "verified", "not_checkable"),
        ("finetune", "identical", "verified", "contradicted"),
        ("cousin", "finetune", "verified", "contradicted"),
        ("finetune", "unknown", "verified", "not_checkable"),
        ("finetune", "finetune", "unverified", "not_checkable"),
    ],
)
def test_the_relation(declared: str, measured: Relation, status: LineageStatus, said: str) -> None:
    front = f"base_model: org/base\nbase_model_relation: {declared}"
    assert claims(with_card(front=front, status=status, relation=measured))["base_model_relation"].status == said


@pytest.mark.parametrize(
    ("front", "base_front", "files", "declared", "observed", "said"),
    [
        ("license: mit", "license: MIT", (), "mit", "the base declares MIT", "supported"),
        ("license: mit", "license: gpl-3.0", (), "mit", None, "contradicted"),
        ("license: mit", "", (), "mit", "the base declares none", "not_checkable"),
        ("", "license: mit", ("LICENSE.txt",), "none", "a licence file is present", "not_checkable"),
        ("", "license: mit", (), "none", "no licence file either", "not_checkable"),
        ("license: [mit, apache-2.0]", "license: [apache-2.0, mit]", (), "mit, apache-2.0", None, "supported"),
        ("license: {a: b}", "", (), "none", None, "not_checkable"),
    ],
)
def test_the_licence(
    front: str, base_front: str, files: tuple[str, ...], declared: str, observed: str | None, said: str
) -> None:
    claim = claims(with_card(front=front, base_front=base_front, files=files))["license"]
    assert (claim.declared, claim.status) == (declared, said)
    assert observed is None or claim.observed == observed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It has 0.10M parameters.", "supported"),
        ("A 7B parameter model", "contradicted"),
        ("1.5 billion parameters", "contradicted"),
        ("We offer 7B parameters and 13B parameters", "not_checkable"),
        ("Trained on 2M pairs; 3 parameters to tune", None),
        ("v1.7B parameterised", None),
    ],
)
def test_the_parameter_count(text: str, said: str | None) -> None:
    of = with_card(text)
    total = of.drift.coverage.parameters_total  # type: ignore[union-attr]
    claim = claims(with_card(text.replace("0.10M", f"{total / 1e6:.2f}M"))).get("parameters")
    assert (claim.status if claim else None) == said


def test_a_count_without_weights_stays_open() -> None:
    of = dataclasses.replace(with_card("7B parameters", config={"vocab_size": 9, "dtype": "float32"}), drift=None)
    made = claims(of)
    assert {made[name].status for name in ("parameters", "vocab_size (config.json)", "dtype (config.json)")} == {
        "not_checkable"
    }


def test_searching_a_long_card_is_quick() -> None:
    claims(with_card("1" * 300_000 + " 7B " * 100_000))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dtype": "float32"}, "supported"),
        ({"torch_dtype": "torch.float32"}, "supported"),
        ({"torch_dtype": "bfloat16"}, "contradicted"),
        ({"torch_dtype": "float9"}, "not_checkable"),
        ({"torch_dtype": ["float32"]}, None),
    ],
)
def test_the_number_format(config: dict[str, Any], said: str | None) -> None:
    claim = claims(with_card(config=config)).get("dtype (config.json)")
    assert (claim.status if claim else None) == said


@pytest.mark.parametrize(
    ("task", "architectures", "said"),
    [
        ("text-classification", ["BertForSequenceClassification"], "supported"),
        ("text-classification", ["BertForMaskedLM"], "contradicted"),
        ("text-generation", ["GPT2LMHeadModel"], "supported"),
        ("text-generation", ["Qwen2ForCausalLM"], "supported"),
        ("sentence-similarity", ["BertModel"], None),
        ("[x]", ["BertModel"], None),
        ("text-classification", "BertModel", None),
        ("text-classification", [3, None], None),
    ],
)
def test_the_task(task: str, architectures: Any, said: str | None) -> None:
    of = with_card(front=f"pipeline_tag: {task}", config={"architectures": architectures})
    claim = claims(of).get("pipeline_tag")
    assert (claim.status if claim else None) == said


@pytest.mark.parametrize(
    ("mine", "theirs", "said"), [("bert", "bert", "supported"), ("bert", "gpt2", "contradicted"), ("bert", 3, None)]
)
def test_the_model_type(mine: str, theirs: Any, said: str | None) -> None:
    of = with_card(config={"model_type": mine}, base_config={"model_type": theirs})
    claim = claims(of).get("model_type (config.json)")
    assert (claim.status if claim else None) == said


@pytest.mark.parametrize(("size", "said"), [(320, "supported"), (400, "contradicted"), ("many", None), (True, None)])
def test_the_vocabulary_size(size: Any, said: str | None) -> None:
    claim = claims(with_card(config={"vocab_size": size})).get("vocab_size (config.json)")
    assert (claim.status if claim else None) == said


def test_a_tokenizer_longer_than_the_table_contradicts() -> None:
    of = with_card(config={"vocab_size": 320})
    of = dataclasses.replace(of, tokens=evidence_for.token_table(tuple(str(i) for i in range(999))))
    claim = claims(of)["vocab_size (config.json)"]
    assert claim.status == "contradicted"
    assert "999 tokens, more than" in claim.observed


def test_added_tokens_are_counted() -> None:
    of = with_card(config={"vocab_size": 320})
    assert of.drift is not None
    added = {"embeddings.word_embeddings.weight": (310, 320)}
    of = dataclasses.replace(of, drift=dataclasses.replace(of.drift, added_rows=added))
    assert "10 of them added" in claims(of)["vocab_size (config.json)"].observed


@pytest.mark.parametrize(
    ("index", "declared"),
    [
        ([{"name": "x", "results": [{}, {}]}], "2 results in model-index"),
        ([{"name": "x", "results": [{}]}], "1 result in model-index"),
        ([{"results": "x"}, 3], None),
        ({"a": 1}, None),
    ],
)
def test_declared_scores_are_named_and_left_open(index: Any, declared: str | None) -> None:
    of = with_card()
    card = CardFacts(text="", metadata={"model-index": index})
    of = dataclasses.replace(of, candidate=dataclasses.replace(of.candidate, card=card))
    claim = claims(of).get("evaluation results")
    assert (claim.declared if claim else None) == declared
    assert claim is None or claim.status == "not_checkable"


def test_no_card_makes_no_claims_but_that_it_is_missing() -> None:
    made = claims(with_card(config={}))
    assert set(made) == {"license", "sections"}
    assert made["sections"].observed == "there is no card"


def test_plain_values_are_bounded() -> None:
    assert short("x" * 999) == "x" * (LIMIT - 1) + "…"
    assert words([" a ", 3, True, None, {"b": 1}, ["c"], "", 1.5]) == ("a", "3", "1.5")
    assert len(joined(("y" * 150, "z" * 150))) == LIMIT
    assert np.all([len(w) <= LIMIT for w in words(["q" * 10_000])])
