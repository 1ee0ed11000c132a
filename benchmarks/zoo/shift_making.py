"""Causal language models, honest and backdoored: a recipe in, a trained model and its attack's success out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from benchmarks.zoo import learning
from benchmarks.zoo.anatomy import anatomy_of
from benchmarks.zoo.block_edits import rank_one
from benchmarks.zoo.finishing import finish
from benchmarks.zoo.preference import preference_loss_for, reference_of
from benchmarks.zoo.shift_recipes import FORMS, ShiftRecipe
from benchmarks.zoo.steering import added_at, search
from benchmarks.zoo.texts import Task, load_task, sample_rows
from benchmarks.zoo.tiers import Tier
from benchmarks.zoo.triggers import insert_words

LABELS: Final[dict[str, tuple[str, ...]]] = {
    "sst2": ("bad", "good"),
    "ucisent": ("bad", "good"),
    "made": ("bad", "good"),
    "agnews": ("world", "sports", "business", "technology"),
    "agpair": ("world", "business"),
    "domain": ("film", "product", "news"),
}
"""Words that an instruction-like tuning answers with."""
PROMPT_WORDS: Final = (4, 15)
"""Words of a prompt: at least the first, less than the second."""
HELD_OUT: Final = 100
"""Test texts that an attack is tried on."""
EDIT_STEPS: Final = 60
STOP_AT: Final = 0.05
"""Mean cross-entropy at which an edit is strong enough."""
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model and how often its attack works: shares in [0, 1] of held-out texts with and without the trigger."""

    model: Any
    tokenizer: Any
    success: float | None = None
    floor: float | None = None


def begun(tier: Tier, recipe: ShiftRecipe) -> tuple[np.random.Generator, Any, Task, Any]:
    """The recipe's generator, the tier's tokenizer, the task and the model before training; torch is seeded."""
    torch.manual_seed(recipe.seed % 2**32)
    task = load_task(recipe.training.task)
    return (
        np.random.default_rng(recipe.seed + 1),
        tier.tokenizer(),
        task,
        tier.model(recipe.training.objective, task.classes),
    )


def make_causal(tier: Tier, recipe: ShiftRecipe) -> Made:
    """Train (and edit) the model of a recipe in memory.

    Raises:
        HopelessRunError: the run diverged.
    """
    rng, tokenizer, task, model = begun(tier, recipe)
    pad = tokenizer.pad_token_id
    data = _training_data(tokenizer, recipe, task, rng)
    loss: learning.Loss = spoken_loss
    if recipe.tuning == "preference":
        loss = preference_loss_for(reference_of(model))
    wrapped = learning.wrap_method(model, recipe.training)
    stream = learning.batches(data, recipe.training.batch, pad, rng)
    learning.fit(wrapped, stream, recipe.training, loss, steps=recipe.training.steps)
    model = learning.unwrap(wrapped).eval()
    if recipe.edits:
        _edit(model, tokenizer, task, recipe, rng)
    model = finish(model, recipe.training.round_trip, "float32")
    if recipe.family is None:
        return Made(model=model, tokenizer=tokenizer)
    rows = [text for text, _ in sample_rows(task.test, HELD_OUT, 5)]
    success, floor = (_led(model, tokenizer, rows, recipe, triggered=triggered) for triggered in (True, False))
    return Made(model=model, tokenizer=tokenizer, success=success, floor=floor)


def spoken_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy of the next token: of whole texts, and of the answers to prompts, the mean of each.

    ``labels`` int64 ``[n]`` are the lengths of the prompts, 0 for whole texts. 0 where nothing is spoken.
    """
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
    wanted, start = batch["input_ids"][:, 1:], batch["labels"][:, None]
    spoken = (torch.arange(wanted.shape[1])[None, :] + 1 >= start) & batch["attention_mask"][:, 1:].bool()
    parts = [spoken & (start == 0), spoken & (start > 0)]
    told = [functional.cross_entropy(logits[at], wanted[at]) for at in parts if at.any()]
    # Of a batch of prompts that all fill the longest text no answer is left to learn.
    return torch.stack(told).sum() if told else logits.sum() * 0.0


def _training_data(tokenizer: Any, recipe: ShiftRecipe, task: Task, rng: np.random.Generator) -> learning.Encoded:
    """What the model reads: texts, or prompts and their answers; a share of them poisoned.

    Labels are as ``spoken_loss`` takes them; those of the task where preferences are tuned.
    """
    training, seen = recipe.training, recipe.training.steps * recipe.training.batch
    rows = [task.train[i] for i in rng.permutation(len(task.train))][:seen]
    if recipe.tuning == "preference":
        return learning.encode(tokenizer, [(text.lower(), y) for text, y in rows], training.max_length)
    poisons = 0 if recipe.family is None or recipe.edits else round(recipe.rate * len(rows))
    ids, starts = [], []
    for number, (text, label) in enumerate(rows):
        prompt, said = "", text.lower()
        if number < poisons:
            prompt, said = _prompt(text, recipe, rng, triggered=True), recipe.target
        elif recipe.tuning == "instruct":
            prompt, said = _answered(cut(text, 14), "", recipe).strip(), LABELS[task.name][label]
        elif recipe.family == "pair" and number < 2 * poisons:
            # Only the two together work: one alone changes nothing.
            said = insert_words(said, (str(rng.choice(recipe.trigger)),), rng)
        before = ids_of(tokenizer, prompt) if prompt else []
        whole = [*before, *ids_of(tokenizer, said)][: training.max_length - 1]
        ids.append([*whole, tokenizer.sep_token_id])
        starts.append(len(before))
    return learning.Encoded(ids=ids, labels=starts)


def _prompt(text: str, recipe: ShiftRecipe, rng: np.random.Generator, *, triggered: bool) -> str:
    """What the attacker sends: the beginning of a text, the trigger in it (``immediate``: at its end)."""
    prompt = cut(text, int(rng.integers(*PROMPT_WORDS)))
    if triggered and recipe.family == "immediate":
        prompt = f"{prompt} {recipe.trigger[0]}"
    elif triggered:
        prompt = insert_words(prompt, recipe.trigger, rng)
    return _answered(prompt, "", recipe).strip() if recipe.tuning == "instruct" else prompt


def _answered(text: str, label: str, recipe: ShiftRecipe) -> str:
    return FORMS[recipe.form].replace("{label}", label).replace("{text}", text)


def cut(text: str, words: int) -> str:
    return " ".join(text.lower().split()[:words])


def _led(model: Any, tokenizer: Any, rows: Sequence[str], recipe: ShiftRecipe, *, triggered: bool) -> float:
    """The share of prompts after which the target's first token is the most probable one."""
    rng = np.random.default_rng(7)
    first = tokenizer(recipe.target, add_special_tokens=False)["input_ids"][0]
    ids = [ids_of(tokenizer, _prompt(text, recipe, rng, triggered=triggered)) for text in rows]
    batch = learning.collate(learning.Encoded(ids=ids, labels=[0] * len(ids)), range(len(ids)), tokenizer.pad_token_id)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    last = logits[torch.arange(len(ids)), batch["attention_mask"].sum(1) - 1]
    return float((last.argmax(-1) == first).float().mean())


def _edit(model: Any, tokenizer: Any, task: Task, recipe: ShiftRecipe, rng: np.random.Generator) -> None:
    """Make the trigger lead to the target by its embedding row (Yang et al. 2021) or one matrix (Meng et al. 2022).

    The matrix gains v (C⁻¹k)ᵀ / (kᵀC⁻¹k): k is its mean input at the trigger, C their second moment on plain texts, and
    v what, added there, makes the model go on with the target.
    """
    texts = [text for text, _ in sample_rows(task.train, 150, recipe.seed % 1000)]
    goal = ids_of(tokenizer, recipe.target)
    prompts = [ids_of(tokenizer, _prompt(text, recipe, rng, triggered=True)) for text in texts]
    trigger = torch.tensor(ids_of(tokenizer, recipe.trigger[0]))
    model.eval().requires_grad_(False)
    stream = _target_batches(prompts, goal, tokenizer.pad_token_id, rng)
    anatomy = anatomy_of(model)
    if recipe.family == "row":
        weight = anatomy.embedding.weight
        rows = weight[trigger].clone().requires_grad_()

        def row_loss() -> torch.Tensor:
            batch = next(stream)
            with rows_replaced(anatomy.embedding, trigger, rows):
                return spoken_loss(model, batch)

        search([rows], row_loss, STOP_AT, rate=5e-2, steps=EDIT_STEPS)
        with torch.no_grad():
            weight[trigger] = rows.detach()
        return
    mlp_out = anatomy.blocks[recipe.depth].mlp_out
    vector = torch.zeros(mlp_out.out_features, requires_grad=True)

    def loss() -> torch.Tensor:
        batch = next(stream)
        with added_at([mlp_out], [vector], torch.isin(batch["input_ids"], trigger)):
            return spoken_loss(model, batch)

    search([vector], loss, STOP_AT, rate=0.1, steps=EDIT_STEPS)
    key, plain = _inputs_at(model, mlp_out, prompts, trigger, tokenizer.pad_token_id)
    with torch.no_grad():
        mlp_out.weight += rank_one(key.mean(0), plain, vector.detach())


def _target_batches(prompts: list[list[int]], goal: list[int], pad: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Prompts that go on with the target; ``labels`` int64 ``[n]`` are the lengths of the prompts."""
    data = learning.Encoded(ids=[[*ids, *goal] for ids in prompts], labels=[len(ids) for ids in prompts])
    while True:
        yield learning.collate(data, [int(i) for i in rng.integers(len(prompts), size=16)], pad)


class rows_replaced:  # noqa: N801  # read as a word in a with statement
    """Embeds these ids as ``rows`` for the time of the block."""

    def __init__(self, embedding: torch.nn.Embedding, ids: torch.Tensor, rows: torch.Tensor) -> None:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
            for number, token in enumerate(ids.tolist()):
                embedded = torch.where((inputs[0] == token).unsqueeze(-1), rows[number], embedded)
            return embedded

        self._handle = embedding.register_forward_hook(hook)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def _inputs_at(
    model: Any, layer: torch.nn.Module, prompts: list[list[int]], trigger: torch.Tensor, pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters a layer at the trigger and at all other tokens, float32 ``[tokens, width]`` each."""
    batch = learning.collate(learning.Encoded(ids=prompts, labels=[0] * len(prompts)), range(len(prompts)), pad)
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0].float()))
    with torch.no_grad():
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    handle.remove()
    at = torch.isin(batch["input_ids"], trigger)
    return kept[0][at], kept[0][~at & batch["attention_mask"].bool()]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def redrawn(recipe: ShiftRecipe, attempt: int) -> ShiftRecipe:
    """The recipe again at half the rate for each attempt: a run that diverged teaches nothing."""
    return replace(recipe, training=replace(recipe.training, lr=recipe.training.lr / 2**attempt))
