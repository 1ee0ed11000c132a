"""How many tokens a probe may run: counted in work, not in seconds, so that it gives the same on any computer."""

from typing import Any, Final

WORK: Final = 6.4e12
"""Parameters times tokens. On one core of an AMD EPYC with bfloat16, about 95 µs a token of a model whose layers have
10.6 million parameters: a minute."""
LEAST_TOKENS: Final = 100_000
"""With fewer not even what the weights suspect can be tried; of the largest models that are run these take minutes."""
MOST_TOKENS: Final = 1_000_000
ASKED: Final = 10
"""Times as much where the user asks for the probe."""
HELD_BACK: Final = 0.1
"""Of the budget, kept from the search for settling what it finds: rivals, crowds and control words."""


def token_budget(model: Any) -> int:
    """Return the most tokens that a probe of this model runs.

    Only parameters beside the input embedding count: a row of that is looked up, and the others are multiplied.
    """
    table = model.get_input_embeddings().weight.numel()
    working = max(sum(p.numel() for p in model.parameters()) - table, 1)
    return int(min(max(WORK / working, LEAST_TOKENS), MOST_TOKENS))
