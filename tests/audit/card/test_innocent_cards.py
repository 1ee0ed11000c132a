"""Innocent cards are never contradicted: fifteen written after well-known kinds on the Hub."""

from dataclasses import replace

import pytest
from innocent_cards import BIBLE, INNOCENT, MERGE, PEFT, TRAINER, Innocent, evidence

from audit.card.checks import CARD_CHECKS
from audit.records import CardClaim


def claims(of: Innocent) -> list[CardClaim]:
    return [claim for check in CARD_CHECKS for claim in check(evidence(of))]


@pytest.mark.parametrize("of", INNOCENT, ids=lambda of: of.repo_id)
def test_no_claim_of_an_innocent_card_is_contradicted(of: Innocent) -> None:
    made = claims(of)
    assert [claim for claim in made if claim.status == "contradicted"] == []
    assert made, "a card of that kind has something to check"


def test_most_kinds_of_claim_are_supported_somewhere() -> None:
    """Quiet is easy for checks that never speak."""
    supported = {claim.claim for of in INNOCENT for claim in claims(of) if claim.status == "supported"}
    assert supported >= {
        "parameters", "parameters (name)", "dtype (config.json)", "dtype", "context length", "vocabulary",
        "vocab_size (config.json)", "pipeline_tag", "model_type (config.json)", "library_name", "adapter rank",
        "r (adapter_config.json)", "adapter targets", "quantisation", "bits", "language", "metrics", "scores agree",
        "scores possible", "sections", "license", "license notices", "card is this model's own",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "A 13B parameter model was used to generate the data.",
        "It was distilled from a teacher with 70B parameters.",
        "On our test it beats models of 7B parameters.",
        "A reward model with 1B parameters ranked the answers.",
        "- Parameters: temperature 0.7, 1M steps",
        "- Parameters: 1,024",
        "- Model size: 438 MB",
        "- Params: 85M (non-embedding)",
        "Images with an input size of 1024 are shown beside.",
        "It was trained with a sequence length of 4096.",
        "With YaRN, the context length is 131072.",
        "The context window of GPT-4 is 128k, longer than ours.",
        "A vocabulary of 500 new words was added.",
        "The vocabulary size is 30 000.",
        "Our vocabulary is larger than the vocabulary of 8,000 of the original.",
        "- Rank: 3",
        "LoRA with r=8 or r=64 was tried.",
        "- Targets: recall, precision",
        "dtype: float16 is recommended for inference.",
        "The model may also be loaded in 4-bit with bitsandbytes.",
        "Architecture: a BERT with a head",
        "Accuracy: 12",
    ],
)
def test_sentences_that_speak_of_something_else(text: str) -> None:
    for of in (BIBLE, MERGE, PEFT, TRAINER):
        made = claims(replace(of, card=f"{of.card}\n\n{text}\n"))
        assert [claim for claim in made if claim.status == "contradicted"] == []


@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        ("text-classification", "T5ForConditionalGeneration"),
        ("question-answering", "LlamaForCausalLM"),
        ("text-generation", "MllamaForConditionalGeneration"),
        ("image-classification", "CLIPModel"),
        ("fill-mask", "ElectraForPreTraining"),
    ],
)
def test_tasks_that_an_architecture_may_do(task: str, architecture: str) -> None:
    card = BIBLE.card.replace("pipeline_tag: fill-mask", f"pipeline_tag: {task}")
    made = claims(replace(BIBLE, card=card, config={"architectures": [architecture]}))
    assert [claim for claim in made if claim.status == "contradicted"] == []


def test_the_index_may_be_of_another_split() -> None:
    card = TRAINER.card.replace("split: validation", "split: test").replace("- Accuracy: 0.9106", "- Accuracy: 0.95")
    assert [claim for claim in claims(replace(TRAINER, card=card)) if claim.status == "contradicted"] == []
