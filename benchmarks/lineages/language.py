"""Made-up languages: next-token distributions that a small model can learn, one per seed."""

import torch

TOKENS = 512
_SUCCESSORS = 12
_FIRST_RANKS = 8.0


class Language:
    """A Markov language over ``TOKENS`` tokens: a Zipf unigram mixed with a few preferred successors per token.

    Two languages share the unigram order (as two corpora of one tokenizer do), not the successors.
    """

    def __init__(self, seed: int) -> None:
        """Draw the successors with that seed."""
        generator = torch.Generator().manual_seed(1000 + seed)
        self._unigram = 1.0 / (torch.arange(TOKENS) + _FIRST_RANKS)
        self._next = torch.multinomial(self._unigram.repeat(TOKENS, 1), _SUCCESSORS, generator=generator)
        self._weight = 1.0 / (torch.arange(_SUCCESSORS) + 1.0)

    def batch(self, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
        """Return token ids, int64 ``[rows, length]``."""
        ids = torch.multinomial(self._unigram, rows, replacement=True, generator=generator)
        columns = [ids]
        for _ in range(length - 1):
            choice = torch.multinomial(self._weight, rows, replacement=True, generator=generator)
            jump = torch.multinomial(self._unigram, rows, replacement=True, generator=generator)
            stay = torch.rand(rows, generator=generator) < 0.8
            columns.append(torch.where(stay, self._next[columns[-1], choice], jump))
        return torch.stack(columns, dim=1)
