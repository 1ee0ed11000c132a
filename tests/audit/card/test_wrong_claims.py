"""The same cards with one wrong statement each: the claim is contradicted, with the measurement, and no other is."""

from dataclasses import replace
from typing import Any

import pytest
from innocent_cards import (
    AXOLOTL,
    BIBLE,
    CONVERSION,
    GGUF,
    GPTQ,
    LLAMA_INSTRUCT,
    MERGE,
    PEFT,
    QWEN_LONG,
    SCRATCH,
    SENTENCES,
    TRAINER,
    UNSLOTH,
    Innocent,
    evidence,
)

from audit.card.checks import CARD_CHECKS
from audit.records import CardClaim

WRONG: tuple[tuple[str, Innocent, dict[str, Any], str], ...] = (
    ("parameters", BIBLE, {"card": ("110M parameters", "340M parameters")}, "109,113,648"),
    ("parameters", QWEN_LONG, {"card": ("7.61B", "14.8B")}, "7,615,616,512"),
    ("parameters", SCRATCH, {"card": ("1,557,611,200", "355,000,000"), "also": ("**1.5B parameter** version", "version")},
     "1,557,611,200"),
    ("parameters (name)", MERGE, {"parameters": 1_543_714_304}, "1,543,714,304"),
    ("dtype (config.json)", TRAINER, {"dtypes": {"F16": 66_955_010}}, "F16"),
    ("dtype", QWEN_LONG, {"card": ("Tensor type: BF16", "Tensor type: F32")}, "BF16"),
    ("context length", SENTENCES, {"card": ("256 tokens", "8192 tokens")}, "max_position_embeddings 512"),
    ("context length", AXOLOTL, {"card": ("Context window: 8k", "Context window: 128k")}, "8,192"),
    ("vocab_size (config.json)", MERGE, {"token_rows": ("model.embed_tokens.weight", 32064)}, "32064 rows"),
    ("vocabulary", SCRATCH, {"card": ("50,257", "151,936")}, "50,257 rows"),
    ("pipeline_tag", TRAINER, {"card": ("tags:\n- gen", "pipeline_tag: fill-mask\ntags:\n- gen")},
     "DistilBertForSequenceClassification"),
    ("model_type (config.json)", MERGE, {"base_config": {"model_type": "llama"}}, "llama"),
    ("architecture", BIBLE, {"card": ("# German legal BERT", "# German legal BERT\n- Architecture: BertForQuestionAnswering")},
     "BertForMaskedLM"),
    ("library_name", MERGE, {"card": ("license: cc", "library_name: peft\nlicense: cc")}, "none found"),
    ("adapter rank", PEFT, {"card": ("r=16", "r=64"), "also": ("rank:** 16", "rank:** 64")}, "rank 16"),
    ("r (adapter_config.json)", PEFT, {"ranks": (8, 16)}, "rank 8, 16"),
    ("adapter targets", PEFT, {"card": ("q_proj, k_proj, v_proj, o_proj", "q_proj, v_proj")}, "k_proj, o_proj"),
    ("quantisation", GPTQ, {"config": {"model_type": "llama"}, "schemes": {}}, "mostly F16"),
    ("quantisation", GGUF, {"files": ("README.md", "model.safetensors"), "schemes": {}}, "mostly F32"),
    ("bits", CONVERSION, {"config": {"quantization_config": {"bits": 8}}}, "8 in config.json"),
    ("language", LLAMA_INSTRUCT, {"card": ("- de\n", "- dx\n")}, "dx"),
    ("scores agree", TRAINER, {"card": ("- Accuracy: 0.9106", "- Accuracy: 0.9506")}, "0.91055 and 0.9506"),
    ("scores agree", SCRATCH, {"card": ("51.4, name: acc, verified: true", "61.4, name: acc")}, "51.2 and 61.4"),
    ("scores possible", SCRATCH, {"card": ("value: 51.2", "value: 512")}, "acc 512"),
    ("license", GPTQ, {"card": ("license: llama2", "license: mit")}, "section 1.b"),
    ("license", MERGE, {"card": ("license: cc-by-nc-4.0", "license: apache-2.0")}, "no commercial use"),
    ("license", UNSLOTH, {"base_card": ("license: apache-2.0", "license: gpl-3.0")}, "the same licence"),
    ("license", SENTENCES, {"base_card": ("license: apache-2.0", "license: cc-by-nd-4.0")}, "no sharing of modified"),
    ("base_model (all places)", PEFT, {"adapter_config": {**(PEFT.adapter_config or {}),
     "base_model_name_or_path": "google/gemma-2-9b"}}, "google/gemma-2-9b"),
)  # fmt: skip


def changed(of: Innocent, change: dict[str, Any]) -> Innocent:
    """The innocent repository with one part replaced; the text of a card by a pair (old, new)."""
    fields = dict(change)
    also = fields.pop("also", None)
    for name in ("card", "base_card"):
        if name in fields:
            text = getattr(of, name)
            for old, new in [fields[name], *([also] if also and name == "card" else [])]:
                assert old in text, f"the card of {of.repo_id} has no {old!r}"
                text = text.replace(old, new)
            fields[name] = text
    return replace(of, **fields)


def claims(of: Innocent) -> list[CardClaim]:
    return [claim for check in CARD_CHECKS for claim in check(evidence(of))]


@pytest.mark.parametrize(("name", "of", "change", "shown"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_statement_is_contradicted_alone(name: str, of: Innocent, change: dict[str, Any], shown: str) -> None:
    contradicted = [claim for claim in claims(changed(of, change)) if claim.status == "contradicted"]
    assert [claim.claim for claim in contradicted] == [name]
    assert shown in contradicted[0].observed


BASE_TEXT = """# Base-7B

""" + " ".join(f"Sentence {n} tells of the base what no other card would tell in these very words." for n in range(30))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("", "contradicted"),
        ("# Starling-Monarch-7B\n\nBelow is the card of the base.\n\n", "not_checkable"),
        (
            "# Starling-Monarch-7B\n\n" + " ".join(f"We tell on our own of day {n} of training." for n in range(20)),
            "supported",
        ),
    ],
)
def test_a_card_copied_from_the_base(head: str, said: str) -> None:
    front = MERGE.card.split("# Starling", maxsplit=1)[0]
    of = replace(MERGE, card=front + head + BASE_TEXT, base_card="---\nlicense: cc-by-nc-4.0\n---\n" + BASE_TEXT)
    claim = next(claim for claim in claims(of) if claim.claim == "card is this model's own")
    assert claim.status == said
    assert "stand in the base's card" in claim.observed


@pytest.mark.parametrize(
    ("loads", "title", "said"),
    [
        ("other/Famous-7B", "Famous-7B", "contradicted"),
        ("other/Famous-7B", "My model", "not_checkable"),
        ("mlabonne/AlphaMonarch-7B", "AlphaMonarch-7B", None),
        ("someone/Starling-Monarch-7B", "Famous-7B", "supported"),
    ],
)
def test_a_card_that_speaks_of_another_model_as_itself(loads: str, title: str, said: str | None) -> None:
    front = MERGE.card.split("# Starling", maxsplit=1)[0]
    code = f'```python\nmodel = AutoModel.from_pretrained("{loads}")\n```\n'
    made = {claim.claim: claim for claim in claims(replace(MERGE, card=f"{front}# {title}\n\n{code}"))}
    claim = made.get("card is this model's own")
    assert (claim.status if claim else None) == said
