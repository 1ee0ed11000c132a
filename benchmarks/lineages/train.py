"""Trains the models of the lineage benchmark: ``nice -n 19 python -m benchmarks.lineages.train``.

Resumable: a model that is complete is skipped. About four seconds a model on an idle core.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from benchmarks.lineages.language import TOKENS, Language
from benchmarks.lineages.plan import Job, Kind, jobs

BANK = Path("build/lineages")
RECORD = "record.json"
_HIDDEN, _LAYERS, _HEADS, _LENGTH, _ROWS = 64, 3, 4, 24, 16


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description="Train the models of the lineage benchmark; complete ones are skipped."
    )
    parser.add_argument("--out", type=Path, default=BANK)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for job in jobs():
        if not (arguments.out / job.name / RECORD).exists():
            train(job, arguments.out)


def train(job: Job, out: Path) -> None:
    """Run one job; the folder appears when it is complete."""
    started = time.perf_counter()
    model = _start(job, out)
    loss = _learn(model, job)
    unfinished = out / f".{job.name}"
    model.save_pretrained(unfinished)
    record = asdict(job) | {"loss": round(loss, 3), "seconds": round(time.perf_counter() - started, 1)}
    (unfinished / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    unfinished.rename(out / job.name)
    print(f"{job.name} loss {loss:.2f} {record['seconds']} s", flush=True)


def _start(job: Job, out: Path) -> PreTrainedModel:
    if job.parent is not None:
        return AutoModelForCausalLM.from_pretrained(out / job.parent)
    torch.manual_seed(job.start_seed)
    return AutoModelForCausalLM.from_config(_config(job.kind))


def _config(kind: Kind) -> GPT2Config | LlamaConfig:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(
            vocab_size=TOKENS, n_positions=64, n_embd=_HIDDEN, n_layer=_LAYERS, n_head=_HEADS, **dropout, **ends
        )
    return LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=_HIDDEN,
        intermediate_size=3 * _HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS // 2,
        max_position_embeddings=64,
        pad_token_id=0,
        **ends,
    )


def _learn(model: PreTrainedModel, job: Job) -> float:
    """AdamW with linear decay; return the mean loss of the last ten steps, in nats."""
    language = Language(job.language)
    # The seed of the data differs between jobs, so that no two models see the same batches.
    generator = torch.Generator().manual_seed(int.from_bytes(job.name.encode()[-7:], "big"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=job.learning_rate, weight_decay=job.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / job.steps)
    losses = []
    model.train()
    for _ in range(job.steps):
        ids = language.batch(_ROWS, _LENGTH, generator)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        losses.append(float(loss.detach()))
    return sum(losses[-10:]) / 10


if __name__ == "__main__":
    main()
