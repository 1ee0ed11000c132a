"""What adapter_config.json says about the factors: their rank, their scale and how they lie.

The formulas are those of peft 0.21: ``alpha / r`` (LoRA, Hu et al. 2021), ``alpha / √r`` (rsLoRA, Kalajdzievski 2023),
``alpha / (init_r + 10⁻⁵)`` (AdaLoRA in ``tuners/adalora/layer.py``, where the rank it began with stays the divisor).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from scanner.errors import CouldNotConclude
from scanner.paths import shown

Family = Literal["LORA", "ADALORA", "TRAINABLE_TOKENS"]

MAX_PATTERNS: Final = 2_048
MAX_PATTERN_CHARS: Final = 200
MAX_MODULE_CHARS: Final = 400
MAX_RANK: Final = 1 << 16
_ADALORA_EPSILON: Final = 1e-5  # the constant in peft's AdaLoRA layer
_DEFAULT_RANK: Final = 8
_DEFAULT_ALPHA: Final = 8.0
_DEFAULT_FIRST_RANK: Final = 12
_TOKENS: Final = {"TRAINABLE_TOKENS": "token_indices"}
_PLAIN: Final = re.compile(r"\^?[A-Za-z0-9_.\\-]+\$?")
_ANYTHING: Final = re.compile(r"\.\*|\\d\+|\[0-9\]\+")
_KEEPS_THE_BASE: Final = frozenset({"gaussian", "eva", "orthogonal"})
"""Starts that leave the base's weights alone; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA subtract the start from them."""
_OTHER_MATHS: Final = (
    "use_qalora",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
"""Options that change what the factors stand for, and which are not followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """The options that decide what an adapter adds to its base.

    ``rank`` is the declared one (for AdaLoRA the one it began with), ``token_rows`` the rows of trained tokens: a
    list for every table, or one by module.
    """

    family: Family
    rank: int
    alpha: float
    root_scaled: bool
    transposed: bool
    magnitudes: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    token_rows: Mapping[str, tuple[int, ...]] | tuple[int, ...]

    def rank_of(self, module: str) -> int:
        """The rank that the configuration gives a module.

        Raises:
            ValueError: a pattern is of a kind that is not evaluated.
        """
        return int(_first_match(self.ranks, module, self.rank))

    def fits(self, module: str, rank: int) -> bool:
        """Whether factors of this rank are what the configuration announces; AdaLoRA prunes its rank in training.

        Raises:
            ValueError: a pattern is of a kind that is not evaluated.
        """
        return 0 < rank <= self.rank if self.family == "ADALORA" else rank == self.rank_of(module)

    def scale_of(self, module: str) -> float:
        """The factor on ``B A``.

        Raises:
            ValueError: a pattern is of a kind that is not evaluated.
        """
        if self.family == "ADALORA":
            return self.alpha / (self.rank + _ADALORA_EPSILON)
        alpha = float(_first_match(self.alphas, module, self.alpha))
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.root_scaled else alpha / rank

    def rows_of(self, module: str) -> tuple[int, ...]:
        """The token rows that are trained in a table; empty when none are declared for it."""
        if isinstance(self.token_rows, tuple):
            return self.token_rows
        ends = (rows for end, rows in self.token_rows.items() if module == end or module.endswith(f".{end}"))
        return next(ends, ())


def read_adapter_config(config: Mapping[str, Any] | None, where: str) -> AdapterConfig:
    """Take in an adapter_config.json; unknown options are ignored, as peft does.

    Args:
        config: the parsed object, None when there is none.
        where: the repository, for messages.

    Raises:
        CouldNotConclude: there is none, it is of a kind or has options that are not followed, or its numbers are
            impossible.
    """
    if config is None:
        raise CouldNotConclude(
            f"{where} holds an adapter without a readable adapter_config.json, which says how to scale it; ask its "
            "author to publish that file."
        )
    family = config.get("peft_type")
    if family not in ("LORA", "ADALORA", "TRAINABLE_TOKENS"):
        raise CouldNotConclude(
            f"{where} holds an adapter of the kind {shown(str(family)[:40])}, which is not read yet; merge it into its "
            "base and scan the result."
        )
    start = config.get("init_lora_weights", True)
    if not isinstance(start, bool) and start is not None and start not in _KEEPS_THE_BASE:
        raise CouldNotConclude(
            f"{where} holds an adapter that rewrites its base when it is loaded ({shown(str(start)[:40])}), which is "
            "not followed yet; merge it into its base and scan the result."
        )
    other = next((option for option in _OTHER_MATHS if config.get(option)), None)
    if other is not None:
        raise CouldNotConclude(
            f"{where} holds an adapter with the option {other}, which is not followed yet; merge it into its base and "
            "scan the result."
        )
    ada = family == "ADALORA"
    rank = config.get("init_r", _DEFAULT_FIRST_RANK) if ada else config.get("r", _DEFAULT_RANK)
    alpha = _number(config.get("lora_alpha", _DEFAULT_ALPHA))
    if not _is_rank(rank) or alpha is None or (ada and alpha <= 0):
        raise CouldNotConclude(
            f"{where} declares an impossible rank or scale in adapter_config.json (r = {shown(str(rank)[:40])}, "
            f"lora_alpha = {shown(str(config.get('lora_alpha'))[:40])}); ask its author to correct it."
        )
    return AdapterConfig(
        family=family,
        rank=rank,
        alpha=alpha,
        root_scaled=config.get("use_rslora") is True and not ada,
        transposed=config.get("fan_in_fan_out") is True,
        magnitudes=config.get("use_dora") is True,
        ranks={} if ada else _patterns(config.get("rank_pattern"), where, ranks=True),
        alphas={} if ada else _patterns(config.get("alpha_pattern"), where, ranks=False),
        token_rows=_token_rows(config.get(_TOKENS.get(family, "trainable_token_indices"))),
    )


def _first_match(patterns: Mapping[str, float], module: str, usual: float) -> float:
    """The value of the first pattern that matches the end of the module's name, as ``peft.utils.get_pattern_key``."""
    name = module[:MAX_MODULE_CHARS]
    return next((value for pattern, value in patterns.items() if _compiled(pattern).match(name)), usual)


@lru_cache(maxsize=4 * MAX_PATTERNS)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A stranger's pattern, compiled when it cannot take long: plain names with at most two runs of anything.

    Raises:
        ValueError: it is of another kind.
    """
    parts = _ANYTHING.sub("", pattern)
    runs = len(_ANYTHING.findall(pattern))
    if len(pattern) > MAX_PATTERN_CHARS or runs > 2 or not (_PLAIN.fullmatch(parts) or not parts):
        raise ValueError(f"the pattern {shown(pattern)} is too involved to be evaluated")
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except re.error as error:
        raise ValueError(f"the pattern {shown(pattern)} is no regular expression") from error


def _patterns(declared: object, where: str, *, ranks: bool) -> dict[str, Any]:
    if declared in (None, {}):
        return {}
    if not isinstance(declared, dict) or len(declared) > MAX_PATTERNS:
        raise CouldNotConclude(
            f"{where} declares patterns of ranks or scales that are no object of up to {MAX_PATTERNS:,} entries; ask "
            "its author to correct adapter_config.json."
        )
    for pattern, value in declared.items():
        if not isinstance(pattern, str) or (not _is_rank(value) if ranks else _number(value) is None):
            raise CouldNotConclude(
                f"{where} declares an impossible rank or scale for {shown(str(pattern))}; ask its author to correct "
                "adapter_config.json."
            )
    return dict(declared)


def _token_rows(declared: object) -> Mapping[str, tuple[int, ...]] | tuple[int, ...]:
    if isinstance(declared, Mapping):
        return {str(name): _indices(rows) for name, rows in declared.items()}
    return _indices(declared)


def _indices(rows: object) -> tuple[int, ...]:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        return ()
    return tuple(row for row in rows if isinstance(row, int) and not isinstance(row, bool))


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_RANK


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
