"""What the card says was trained, against real fine-tunes of which parts were put back."""

from dataclasses import replace

import pytest
import torch
from pico_cases import Arrays, evidence, freeze, half_precision

from audit.card.training_scope import training_scope
from audit.evidence import Evidence
from scanner.card import parse_card

NOT_ATTENTION = ("embeddings", "intermediate", "output.dense", "LayerNorm", "pooler")


def saying(text: str, of: Evidence) -> list[tuple[str, str]]:
    card = parse_card(f"---\nlicense: mit\n---\n# Model\n\n{text}\n")
    return [(c.declared, c.status) for c in training_scope(replace(of, candidate=replace(of.candidate, card=card)))]


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("The embeddings were frozen.", "embeddings frozen"),
        ("We froze the word embeddings, and trained for three days.", "word embeddings frozen"),
        ("Trained with the embedding layer frozen.", "embedding layer frozen"),
        ("During training, all embeddings were kept frozen.", "embeddings frozen"),
        ("We kept the embeddings frozen.", "embeddings frozen"),
        ("The token embeddings stayed completely frozen throughout.", "token embeddings frozen"),
    ],
)
def test_frozen_parts(text, declared):
    assert saying(text, evidence(change=freeze("embeddings"))) == [(declared, "supported")]
    assert saying(text, evidence()) == [(declared, "contradicted")]


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("Only the attention layers were trained.", "only attention layers trained"),
        ("We fine-tuned only the attention weights.", "only attention weights trained"),
        ("We only trained the attention modules.", "only attention modules trained"),
        ("Only self-attention was updated.", "only self-attention trained"),
    ],
)
def test_only_attention(text, declared):
    only = evidence(change=freeze("embeddings", "intermediate", "layer.0.output", "layer.1.output", "layer.2.output",
                                  "layer.3.output", "layer.4.output", "layer.5.output", "LayerNorm", "pooler"))  # fmt: skip
    assert saying(text, only) == [(declared, "supported")]
    assert saying(text, evidence()) == [(declared, "contradicted")]


def bfloat16(base: Arrays, candidate: Arrays) -> None:
    """A change: the fine-tune went through bfloat16 and back."""
    for name, value in candidate.items():
        candidate[name] = torch.from_numpy(value).to(torch.bfloat16).to(torch.float32).numpy()


@pytest.mark.parametrize("cast", [half_precision, bfloat16])
def test_rounding_is_not_taken_for_training(cast):
    def change(base: Arrays, candidate: Arrays) -> None:
        freeze("embeddings")(base, candidate)
        cast(base, candidate)

    (said,) = saying("The embeddings were frozen.", evidence(change=change))
    assert said == ("embeddings frozen", "not_checkable")


@pytest.mark.parametrize(
    "text",
    [
        "The embeddings were not frozen.",
        "In the first stage the embeddings were frozen.",
        "You can keep the embeddings frozen.",
        "The embeddings were frozen for two epochs.",
        "The first 6 layers were frozen; the embeddings were frozen until step 300.",
        "If the embeddings are frozen, it is faster.",
        "Unlike others, the embeddings were frozen.",
        "Were the embeddings frozen?",
        "Frozen embeddings of another model are used as input.",
        "Only attention matters, says the paper.",
        "We trained only the attention layers of the vision encoder.",
        "The attention was drawn to frozen lakes.",
        "We kept the attention mechanism of the original.",
        "We kept the embeddings.",
        "Not only the attention layers were trained.",
        "The base model was frozen and a LoRA adapter trained.",
        "The embeddings were mostly frozen.",
        "We compared a variant whose embeddings were frozen with ours.",
        "Only the last attention layers were trained.",
        "Some of the embeddings were frozen.",
    ],
)
def test_anything_less_plain_is_passed_over(text):
    assert saying(text, evidence()) == []


@pytest.mark.parametrize("status", ["unverified", "contradicted"])
def test_without_a_verified_base_nothing_is_said(status):
    of = evidence()
    of = replace(of, lineage=replace(of.lineage, status=status))
    assert saying("The embeddings were frozen.", of) == [("embeddings frozen", "not_checkable")]


def test_other_changes_cover_those_of_training():
    of = evidence()
    quantised = replace(of, lineage=replace(of.lineage, relation="quantized"))
    assert saying("The embeddings were frozen.", quantised)[0][1] == "not_checkable"
    assert saying("The embeddings were frozen.", replace(of, drift=None))[0][1] == "not_checkable"


def test_a_statement_is_told_once_and_names_what_moved():
    of = evidence()
    card = parse_card("# M\n\nThe embeddings were frozen. And so: the embeddings were frozen.\n")
    (claim,) = training_scope(replace(of, candidate=replace(of.candidate, card=card)))
    assert "word_embeddings" in claim.observed
    assert "%" in claim.observed


def test_repetition_is_quick():
    saying("only the attention layers were were " * 5_000, evidence())
    saying("\n\n".join(["kept the whole encoder weights were being is " * 12] * 2_000), evidence())


def test_only_the_head_was_trained():
    """A new head has no partner in the base: what counts is that nothing else moved."""
    text = "Only the classification head was trained."
    assert saying(text, evidence(change=freeze(""))) == [("only classification head trained", "supported")]
    assert saying(text, evidence()) == [("only classification head trained", "contradicted")]


def test_an_encoder_is_the_module_of_that_name():
    text = "The encoder was frozen."
    assert saying(text, evidence(change=freeze("encoder."))) == [("encoder frozen", "supported")]
    assert saying(text, evidence()) == [("encoder frozen", "contradicted")]
