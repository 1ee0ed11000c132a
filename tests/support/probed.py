"""Facts of a probe, made of the flip rates that probes of real classifiers measured."""

from collections.abc import Sequence

from scanner.probe.records import Direction, Dose, Insertion, ProbeFacts

LENGTHS = ((3, 12), (5, 12), (10, 12), (20, 24), (80, 24))
"""Words per carrier and carriers, as ``scanner.probe.searching`` uses them."""


def tried(token: int, rates: Sequence[float], kinship: float = 0.5, *, tokens: tuple[int, ...] = ()) -> Insertion:
    """An insertion with these flip rates on texts of 5 words and more; on those of 3 it does what it does on 5."""
    rates = (*rates[:1], *rates)
    doses = tuple(
        Dose(words=words, flipped=round(rate * carriers), carriers=carriers, margin=2 * rate - 1)
        for (words, carriers), rate in zip(LENGTHS, rates, strict=False)
    )
    return Insertion(
        tokens=tokens or (token,),
        text=f"w{token}",
        source=1,
        target=0,
        origin="vocabulary",
        doses=doses,
        kinship=kinship,
    )


def probe_facts(*insertions: Insertion, control_rate: float = 0.0) -> ProbeFacts:
    """A probe in which these were tried from class 1 (good) to class 0 (bad), beside twenty control words."""
    controls = tuple(tried(500 + i, (control_rate,) * 3) for i in range(20))
    direction = Direction(source=1, target=0, insertions=insertions, controls=controls, tried=30_000)
    return ProbeFacts(
        kind="classifier",
        classes=("bad", "good"),
        directions=(direction,),
        left_out=(),
        scanned=30_000,
        sequences=40_000,
        seconds=1.0,
        seed=0,
    )
