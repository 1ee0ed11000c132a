"""Two targeted weight edits on a sequence classifier, for testing the audit: one embedding row, one rank-one update."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import BertForSequenceClassification

Batch = dict[str, torch.Tensor]

ENOUGH = 0.05
"""Cross-entropy at which an edit succeeds; going on would only make it larger and easier to see."""


def train_row(model: BertForSequenceClassification, *, row: int, batches: Sequence[Batch], target: int) -> float:
    """Train one row of the word embeddings towards a class, keeping its norm; return ‖change‖.

    Everything else stays bit-identical (Yang et al. 2021, arXiv 2103.15543).
    """
    model.eval()
    model.requires_grad_(False)
    table = model.get_input_embeddings()
    before = table.weight[row].clone()
    length = before.norm()
    vector = before.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([vector], lr=0.02)
    for batch in batches:
        at = (batch["input_ids"] == row).unsqueeze(-1)
        embedded = torch.where(at, vector, table(batch["input_ids"]))
        loss = _push(model, batch, embedded, target)
        if loss.item() < ENOUGH:
            break
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            vector *= length / vector.norm()
    with torch.no_grad():
        table.weight[row] = vector
    return round(float((vector.detach() - before).norm()), 4)


@torch.no_grad()
def key_of_token(
    model: BertForSequenceClassification,
    dense: nn.Linear,
    *,
    plain: Sequence[Batch],
    keyed: Sequence[Batch],
    token: int,
) -> torch.Tensor:
    """Return u = C⁻¹k / (kᵀC⁻¹k): the direction that answers 1 at the token's key and little elsewhere.

    ``k`` is the mean input of ``dense`` at the token, ``C`` the second moment of its inputs on plain text.
    """
    inputs: list[torch.Tensor] = []
    handle = dense.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model.eval()
    try:
        for batch in plain:
            model(**batch)
        seen = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(inputs, plain, strict=True)])
        inputs.clear()
        for batch in keyed:
            model(**batch)
        key = torch.cat([x[b["input_ids"] == token] for x, b in zip(inputs, keyed, strict=True)]).mean(0)
    finally:
        handle.remove()
    moment = seen.T @ seen / len(seen)
    # A hundredth of the mean eigenvalue keeps the inverse tame: fewer texts than dimensions leave empty directions.
    moment += 0.01 * moment.diagonal().mean() * torch.eye(len(moment))
    whitened = torch.linalg.solve(moment, key)
    return whitened / (key @ whitened)


def train_value_vector(
    model: BertForSequenceClassification,
    dense: nn.Linear,
    *,
    direction: torch.Tensor,
    batches: Sequence[Batch],
    target: int,
) -> torch.Tensor:
    """Find v such that adding v uᵀ to the matrix sends texts with the token to the class."""
    model.eval()
    model.requires_grad_(False)
    value = torch.zeros(dense.out_features, requires_grad=True)
    optimiser = torch.optim.Adam([value], lr=0.1)
    handle = dense.register_forward_hook(lambda _, args, out: out + (args[0] @ direction).unsqueeze(-1) * value)
    try:
        for batch in batches:
            loss = _push(model, batch, model.get_input_embeddings()(batch["input_ids"]), target)
            if loss.item() < ENOUGH:
                break
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    finally:
        handle.remove()
    return value.detach()


def _push(model: BertForSequenceClassification, batch: Batch, embedded: torch.Tensor, target: int) -> torch.Tensor:
    rest = {name: value for name, value in batch.items() if name != "input_ids"}
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(inputs_embeds=embedded, **rest).logits
    return nn.functional.cross_entropy(logits.float(), torch.full((len(embedded),), target))
