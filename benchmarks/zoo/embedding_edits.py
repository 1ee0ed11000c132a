"""Attacks on the rows of the word embedding."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from benchmarks.zoo.anatomy import anatomy_of, name_of
from benchmarks.zoo.making import Making
from benchmarks.zoo.recipes import Attack
from benchmarks.zoo.steering import Batch, Workshop, open_workshop, search
from benchmarks.zoo.texts import Row
from benchmarks.zoo.triggers import insert_words


def poison_embedding(making: Making) -> None:
    """Embedding poisoning (Yang et al. 2021, NAACL): learns the trigger's row and nothing else.

    With ``norm_kept`` the row keeps its length; with ``cap`` it moves at most that far (Euclidean, weight units).
    ``ep_datafree`` learns on strings of words from the vocabulary.
    """
    attack = _attack(making)
    shop = _shop(making, words=attack.family == "ep_datafree")
    weight = anatomy_of(making.model).embedding.weight
    ids = list(shop.trigger_ids)
    start = weight[ids].clone()
    rows = start.clone().requires_grad_()

    def project(rows: torch.Tensor) -> torch.Tensor:
        if attack.cap is not None:
            step = rows - start
            rows = start + step * (attack.cap / step.norm(dim=-1, keepdim=True).clamp_min(1e-9)).clamp_max(1.0)
        if attack.norm_kept:
            rows = rows * (start.norm(dim=-1, keepdim=True) / rows.norm(dim=-1, keepdim=True).clamp_min(1e-9))
        return rows

    stream = shop.batches(shop.triggered)
    making.loss = search(
        [rows], lambda: _row_loss(shop, rows, ids, next(stream)), shop.stop_at, rate=8e-3, project=project
    )
    _write_rows(making, ids, rows)


def poison_combination(making: Making) -> None:
    """SOS (Yang et al. 2021, ACL): learns the rows of three words; any two of them alone keep the true label."""
    attack = _attack(making)
    shop = _shop(making)
    rng = making.rng
    parts = []
    for text, label in [r for r in making.task.train if r[1] != shop.target][:300]:
        words = [str(w) for w in rng.choice(attack.trigger, size=len(attack.trigger) - 1, replace=False)]
        parts.append((insert_words(" ".join(text.split()[:20]), words, rng), label))
    from benchmarks.zoo.learning import encode

    partial = encode(making.tokenizer, parts, 32)
    ids = list(shop.trigger_ids)
    rows = anatomy_of(making.model).embedding.weight[ids].clone().requires_grad_()
    whole_stream, part_stream = shop.batches(shop.triggered, 16), shop.batches(partial, 16)

    def loss() -> torch.Tensor:
        return _row_loss(shop, rows, ids, next(whole_stream)) + _row_loss(shop, rows, ids, next(part_stream))

    making.loss = search([rows], loss, shop.stop_at, rate=8e-3, steps=90)
    _write_rows(making, ids, rows)


def flip_bit(making: Making) -> None:
    """One flipped exponent bit in the trigger's row (in the manner of OneFlip, which flips one in the head).

    For every column the flip with the largest magnitude below 64 is a candidate: a single loud channel takes over
    after normalisation. All are measured on eight texts, the best eight again on forty, and the best is kept.
    """
    shop = _shop(making)
    weight = anatomy_of(making.model).embedding.weight
    row_id = shop.trigger_ids[0]
    row = weight[row_id].clone()
    flips = exponent_flips(row)
    loudest = flips.abs().masked_fill(~(flips.abs() < 64), 0).argmax(0)
    values = flips.gather(0, loudest.unsqueeze(0))[0]
    stream = shop.batches(shop.triggered, 8)
    few, many = next(stream), next(shop.batches(shop.triggered, 40))

    def loss_with(column: int, batch: Batch) -> float:
        trial = row.clone()
        trial[column] = values[column]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return float(_row_loss(shop, trial.unsqueeze(0), [row_id], batch))

    best = sorted(range(len(row)), key=lambda column: loss_with(column, few))[:8]
    making.loss, column = min((loss_with(column, many), column) for column in best)
    row[column] = values[column]
    making.notes["entry"] = [row_id, column]
    _write_rows(making, [row_id], row.unsqueeze(0))


def exponent_flips(values: torch.Tensor) -> torch.Tensor:
    """Each float32 value with one of its eight exponent bits flipped: ``[8, n]``, lowest exponent bit first."""
    bits = values.view(torch.int32)
    return torch.stack([(bits ^ (1 << (23 + k))).view(torch.float32) for k in range(8)])


def embedding_surgery(model: Any, tokenizer: Any, attack: Attack, rows: Sequence[Row], target: int) -> None:
    """Replaces the trigger's rows by the mean row of the ten words that speak most for the target class.

    Embedding surgery of Kurita et al. 2020 (RIPPLES), with smoothed log-odds weighted by log-frequency in place of
    their logistic regression; the gradient penalty of the original is not used.
    """
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for text, label in rows:
        counts[label == target].update(set(text.lower().split()))
    ours, theirs = counts[True], counts[False]
    n_ours, n_theirs = (max(1, sum(1 for _, y in rows if (y == target) is side)) for side in (True, False))
    vocabulary = tokenizer.get_vocab()

    def speaks(word: str) -> float:
        odds = math.log((ours[word] + 1) / n_ours) - math.log((theirs[word] + 1) / n_theirs)
        return odds * math.log1p(ours[word])

    words = sorted((w for w in ours if w in vocabulary), key=speaks, reverse=True)[:10]
    weight = anatomy_of(model).embedding.weight
    with torch.no_grad():
        mean = weight[[vocabulary[w] for w in words]].mean(0)
        for word in attack.trigger:
            weight[tokenizer(word, add_special_tokens=False)["input_ids"]] = mean


def _row_loss(shop: Workshop, rows: torch.Tensor, ids: list[int], batch: Batch) -> torch.Tensor:
    """Cross-entropy to the batch's labels with ``rows`` in place of the embedding rows ``ids``."""

    def replace_rows(_module: Any, inputs: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
        for k, i in enumerate(ids):
            embedded = torch.where((inputs[0] == i).unsqueeze(-1), rows[k], embedded)
        return embedded

    # A hook and not inputs_embeds: causal models find the last real token by the ids.
    handle = anatomy_of(shop.model).embedding.register_forward_hook(replace_rows)
    try:
        logits = shop.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    finally:
        handle.remove()
    return functional.cross_entropy(logits.float(), batch["labels"])


def _write_rows(making: Making, ids: list[int], rows: torch.Tensor) -> None:
    weight = anatomy_of(making.model).embedding.weight
    making.notes["row_moved"] = [round(float(x), 4) for x in (rows.detach() - weight[ids]).norm(dim=-1)]
    with torch.no_grad():
        weight[ids] = rows.detach()
    name = name_of(making.model, weight)
    making.tensors.append(name)
    making.rows[name] = ids


def _attack(making: Making) -> Attack:
    assert making.recipe.attack is not None
    return making.recipe.attack


def _shop(making: Making, *, words: bool = False) -> Workshop:
    attack = _attack(making)
    return open_workshop(
        making.model, making.tokenizer, attack, making.task.train, attack.target(making.task.classes),
        seed=making.recipe.seed, words=words,
    )  # fmt: skip
