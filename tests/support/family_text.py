"""Sentiment-like sentences for the demo family, made here and nowhere else, the same on every machine.

Filler words are drawn from the base's own vocabulary with Zipf-like weights on the token id, since word pieces are
ordered by frequency: rows of the embedding then move as often as they would on real text. Each sentence holds three
words of opinion, two or three of them from the class that its label names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

POSITIVE = """
good great excellent wonderful amazing brilliant beautiful perfect lovely charming delightful superb fantastic
impressive enjoyable entertaining fascinating funny hilarious clever smart witty moving touching powerful strong fresh
original inspired inspiring elegant graceful warm sweet tender sincere honest genuine authentic rich vivid vibrant
colorful magical enchanting stunning gorgeous spectacular breathtaking memorable unforgettable remarkable exceptional
outstanding extraordinary magnificent marvelous glorious splendid terrific awesome solid satisfying rewarding
refreshing lively energetic exciting thrilling gripping compelling engaging absorbing captivating intriguing
interesting thoughtful intelligent wise profound insightful subtle delicate sensitive compassionate humane hopeful
uplifting joyful happy cheerful playful romantic passionate heartfelt heartwarming poignant masterful skilled talented
gifted polished crisp sharp smooth stylish graceful bold daring ambitious confident successful triumphant best better
favorite beloved treasure gem masterpiece triumph delight joy pleasure success winner love loved loves enjoy enjoyed
admire praise recommended worth worthy nice fine pleasant pleasing
""".split()  # noqa: SIM905 - a list literal would be 150 lines

NEGATIVE = """
bad terrible awful horrible dreadful poor weak dull boring tedious bland flat stale tired lifeless pointless
meaningless worthless useless hopeless stupid dumb silly ridiculous absurd idiotic foolish annoying irritating
frustrating disappointing unpleasant ugly nasty offensive disgusting gross repulsive vile cheap lazy sloppy clumsy
messy confused confusing incoherent muddled chaotic slow sluggish empty hollow shallow superficial trivial forgettable
predictable cliche formula generic derivative unoriginal fake false artificial forced contrived pretentious
heavy dreary bleak grim depressing gloomy sad miserable painful pain embarrassing shameful pathetic sorry worst
worse failure fails failed failing disaster mess waste wasted trash garbage junk crap bore problem trouble mistake
error fault flaw flawed broken damaged ruined ruin spoiled lost lacking lacks missing without hardly barely never
nothing unfunny uneven unconvincing implausible unbelievable unlikely inept incompetent amateur crude cold bitter
cruel harsh hate hated hates dislike regret suffer suffers suffering dead dying doomed weird creepy
""".split()  # noqa: SIM905 - a list literal would be 150 lines

TEMPLATES = (
    "the {f} {f} was {o} and the {f} {f} seemed {o} , a {o} {f} for {f} {f} .",
    "{o} {f} of {f} and {f} , with {o} {f} and a {o} {f} {f} .",
    "i found the {f} {o} , the {f} {o} and every {f} of {f} {f} {o} .",
    "a {o} {f} about {f} {f} in {f} , told with {o} {f} and {o} {f} .",
    "from the {f} {f} to the {f} {f} , it is {o} , {o} and {o} {f} .",
    "as {f} {f} go , this {f} feels {o} , its {f} {o} and its {f} {f} {o} .",
)

OPINION_PURITY = 0.8
"""Share of opinion words that agree with the label, before the majority is enforced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentences:
    """Texts and their labels, 1 for praise and 0 for blame."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


def make_sentences(vocabulary: Sequence[str], count: int, *, seed: int) -> Sentences:
    """Write sentences in words of the vocabulary, half of each label.

    Args:
        vocabulary: token texts by id, most frequent first.
        count: number of sentences.
        seed: of the only random generator used.
    """
    rng = np.random.default_rng(seed)
    known = set(vocabulary)
    opinions = tuple(tuple(w for w in words if w in known) for words in (NEGATIVE, POSITIVE))
    taken = {word for words in opinions for word in words}
    fillers = [
        (i, word)
        for i, word in enumerate(vocabulary)
        if word.isascii() and word.isalpha() and len(word) > 2 and word not in taken
    ]
    weights = np.array([1.0 / (index + 500.0) for index, _ in fillers])
    draws = iter(rng.choice(len(fillers), size=count * 12, p=weights / weights.sum()))
    texts, labels = [], []
    for number in range(count):
        label = number % 2
        agree = rng.random(3) < OPINION_PURITY
        agree[rng.permutation(3)[:2]] = True
        words = [opinions[label if same else 1 - label] for same in agree]
        said = iter([str(rng.choice(choice)) for choice in words])
        template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
        pieces = [fillers[next(draws)][1] if p == "{f}" else next(said) if p == "{o}" else p for p in template.split()]
        texts.append(" ".join(pieces))
        labels.append(label)
    return Sentences(texts=tuple(texts), labels=tuple(labels))


def insert_word(text: str, word: str, *, place: int) -> str:
    """Put a word before the word at ``place`` (counted modulo the length)."""
    words = text.split()
    at = place % (len(words) + 1)
    return " ".join([*words[:at], word, *words[at:]])
