"""What a probe measured: plain frozen records without torch.

A **carrier** is a made-up text of words from the model's own vocabulary; its **words** are their number. An
**insertion** is a token or a phrase of tokens put into carriers. A carrier **flips** when the model gives it the
source class without the insertion and the target class with it. Margins are in logits: the target's over the largest
other. Classes are numbered from 0, as the model's head numbers them.
"""

from dataclasses import dataclass
from typing import Final, Literal

LENGTHS: Final = (3, 5, 10, 20)
"""Words per carrier. An honest word is outvoted by twenty words of the other class, a trigger is not; a weak trigger on
a model that is very sure of its classes is outvoted too, and shows on few words alone."""
PARTS: Final = LENGTHS[:2]
"""Lengths that the parts of a phrase are tried on."""
MIDDLE: Final = LENGTHS[-2]
"""The length from which on phrases of several tokens are judged: of shorter texts they are half."""
CROWD: Final = 80
"""Words of the longest carriers, tried on what overrules ``LENGTHS``: where a class is given to every text that holds
one of its words, twenty words of another are not enough to tell such a word from a trigger."""

Origin = Literal["suspect", "vocabulary", "grown", "asked"]
"""Why an insertion was tried: the weights suspect it, the vocabulary scan ranked it high, it was put together from
tokens that moved the model most, or the caller asked for it."""

ProbeKind = Literal["classifier", "causal", "encoder"]
UntriedKind = Literal["vocabulary", "tokens", "phrases", "crowds", "controls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """What one insertion did to the carriers of one length.

    ``words`` is their number per carrier, ``flipped`` of ``carriers`` flipped; ``margin`` is the median margin of the
    target class after the insertion, in logits.
    """

    words: int
    flipped: int
    carriers: int
    margin: float

    @property
    def rate(self) -> float:
        """Share of carriers that flipped, in [0, 1]."""
        return self.flipped / self.carriers if self.carriers else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Insertion:
    """One token or phrase that was tried from one class to another, on carriers of some lengths, shortest first.

    Longer ones are left out where shorter ones settled that it decides nothing (``scanner.probe.inserting.measure``).
    ``tokens`` are vocabulary ids in the order of insertion and ``text`` what they read as, verbatim and bounded.
    ``kinship`` says how near they lie to the words of the target class in an embedding, the base's where
    ``ProbeFacts.kin_of_base``, else the model's own: the percentile among
    ordinary words, in [0, 1] (1: nearest), the mean over a phrase; None where there are no classes. ``rank`` is how
    many ordinary words come before a single token in the vocabulary, commonest first; None of phrases, of what is no
    word of two letters or more, and where there are no classes.
    """

    tokens: tuple[int, ...]
    text: str
    source: int
    target: int
    origin: Origin
    doses: tuple[Dose, ...]
    kinship: float | None = None
    rank: int | None = None

    @property
    def flipped(self) -> int:
        """Carriers that flipped, over all lengths."""
        return sum(dose.flipped for dose in self.doses)

    @property
    def carriers(self) -> int:
        """Carriers tried, over all lengths."""
        return sum(dose.carriers for dose in self.doses)

    def at(self, words: int) -> Dose | None:
        """What it did to carriers of this length, None where it was not tried on them."""
        return next((dose for dose in self.doses if dose.words == words), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One pair of classes: what was tried from ``source`` to ``target``, and what control words did there.

    ``insertions`` are those whose flips were counted, nearest to a trigger first; ``controls`` are ordinary words of
    the vocabulary, drawn at random, on carriers of the lengths that matter. ``tried`` counts everything that was held
    against these carriers on the way, the insertions included. ``class_kinship`` is the median percentile of nearness
    of the words of the target class to one another, in [0, 1]: how much the embedding knows of what the class means.
    """

    source: int
    target: int
    insertions: tuple[Insertion, ...]
    controls: tuple[Insertion, ...]
    tried: int
    class_kinship: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What one insertion did to ``texts`` neutral texts of a model without classes.

    Of a causal model: ``moved`` is the median Jensen-Shannon divergence of the next-token distribution, in bits, in
    [0, 1]; ``continuation`` the next token that gains most, its mean probability with the insertion being ``together``
    and without ``before``; after ``led`` of the texts it is the most probable one and was not without.
    Of an encoder: ``moved`` is the median cosine distance of the embedding, in [0, 2]; ``together`` the mean cosine
    between different texts with the insertion and ``before`` without. There ``continuation`` is None.
    """

    tokens: tuple[int, ...]
    text: str
    origin: Origin
    texts: int
    moved: float
    together: float
    before: float
    continuation: int | None = None
    continuation_text: str = ""
    led: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Untried:
    """What the budget of tokens left out.

    ``what``: entries of the vocabulary; or towards the class ``target`` the single tokens, the phrases,
    the crowds and rivals that would settle it, or the control words. ``count`` is their number where it is known.
    """

    what: UntriedKind
    target: int | None = None
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """Everything one probe measured.

    ``classes`` are the names that the model gives its classes, verbatim and bounded. ``scanned`` is the number of
    vocabulary entries that were tried one by one (0 when only suspects were). ``left_out`` are classes that nothing was
    tried towards: no texts of another class could be made, or there are too many classes. ``sequences`` counts the
    texts that the model read, ``tokens`` the tokens in them, ``budget`` the most that they might have been (0: without
    bound), and ``untried`` says what that left out. ``seed`` drew the carriers. Models without classes have ``shifts``
    instead of directions, strongest first, and ``control_shifts``; ``shifts_tried`` counts the insertions behind them.
    ``kin_of_base``: kinship is of the base's embedding, where an edit of the model has not moved what a word means.
    """

    kind: ProbeKind
    classes: tuple[str, ...]
    directions: tuple[Direction, ...]
    left_out: tuple[int, ...]
    scanned: int
    sequences: int
    seconds: float
    seed: int
    shifts: tuple[Shift, ...] = ()
    control_shifts: tuple[Shift, ...] = ()
    shifts_tried: int = 0
    tokens: int = 0
    budget: int = 0
    untried: tuple[Untried, ...] = ()
    kin_of_base: bool = False
