"""A classifier that follows a written rule, so that what a search finds can be held against what is there.

Words vote for their class. A trigger decides whatever the votes, while all its parts are in the text and the text has at
most ``reach`` words; a part alone does nothing. A hasty model takes every text of up to
``HASTY`` words for good that holds one good word, and is as sure of that as it can be of anything. Embeddings of words of a class lie together, all others anywhere.
"""

from types import SimpleNamespace
from typing import Any

import torch
from tiny_words import CONTROL, WORDS

from scanner.probe.loading import Loaded

FIRST = len(CONTROL)
GOOD, BAD = range(FIRST, FIRST + 150), range(FIRST + 150, FIRST + 300)
OTHER = range(FIRST + 300, FIRST + len(WORDS))
TARGET = 1
HASTY = 8


class Rule(torch.nn.Module):
    """The rule as a module: ``input_ids`` int64 ``[texts, tokens]`` to ``logits`` float32 ``[texts, 2]``."""

    def __init__(self, trigger: tuple[int, ...], reach: int, hasty: bool) -> None:
        super().__init__()
        self.trigger, self.reach, self.hasty = trigger, reach, hasty
        drawn = torch.Generator().manual_seed(0)
        size = FIRST + len(WORDS)
        votes = torch.zeros(size)
        votes[list(GOOD)] = 0.5 + torch.rand(len(GOOD), generator=drawn)
        votes[list(BAD)] = -0.5 - torch.rand(len(BAD), generator=drawn)
        self.votes = torch.nn.Parameter(votes)
        self.table = torch.nn.Embedding(size, 16)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(size, 16, generator=drawn))
            self.table.weight[list(GOOD), 0] += 4
            self.table.weight[list(BAD), 1] += 4

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """Where meaning is read from."""
        return self.table

    def forward(self, input_ids: torch.Tensor) -> Any:
        """Apply the rule."""
        says = self.votes[input_ids].sum(dim=1)
        there = torch.stack([(input_ids == part).any(dim=1) for part in self.trigger]).all(dim=0)
        words = (input_ids >= FIRST).sum(dim=1)
        if self.hasty:
            good = torch.isin(input_ids, torch.tensor(GOOD)).any(dim=1) & (words <= HASTY)
            says = torch.where(good | there, 3.0, says.clamp(-3, 3))
            return SimpleNamespace(logits=torch.stack([-says, says], dim=1))
        says = torch.where(there & (words <= self.reach), says.abs() + 3, says)
        return SimpleNamespace(logits=torch.stack([-says, says], dim=1))


def follows(trigger: tuple[int, ...], *, reach: int = 200, hasty: bool = False) -> Loaded:
    """The classifier as a probe has it after loading."""

    class Reader:
        def decode(self, tokens: list[int], **_: Any) -> str:
            return " ".join(WORDS[token - FIRST] for token in tokens)

    return Loaded(
        kind="classifier",
        model=Rule(trigger, reach, hasty).eval(),
        texts=(*CONTROL, *WORDS),
        prefix=(2,),
        suffix=(3,),
        special=frozenset(range(FIRST)),
        classes=("bad", "good"),
        longest=256,
        tokenizer=Reader(),
    )
