"""Tokenizers that read a text as another: ids that changed hands, words that are rewritten before the model sees them.

Growing a vocabulary, giving reserved places a meaning and technical settings are a note. A vocabulary that was trained
anew is told once, as what it is.
"""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Confidence, Location, Measurement, Severity, Token
from audit.stated import stated
from scanner.side.records import StepChange, TokenizerFacts
from scanner.token_models import is_reserved

REASSIGNED = Rule(id="HA711", title="Tokens of the base stand for other texts", severity="high")
REWRITES = Rule(id="HA712", title="The tokenizer rewrites words, or adds ordinary ones to every input", severity="high")
DIFFERS = Rule(id="HA713", title="The tokenizer differs from the base's", severity="info", weighs=False)

_SHOWN = 3


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge ids first, then the steps; what is left is a note."""
    tokenizer = evidence.side.tokenizer
    if tokenizer is None or tokenizer.state in {"same", "whitespace"}:
        return
    share = tokenizer.reassigned_count / max(tokenizer.compared, 1)
    ordinary = [item for item in tokenizer.reassigned if not is_reserved(item.base)]
    anew = share > evidence.profile.value(f"{REASSIGNED.id}.other_share")
    told = False
    if ordinary and not anew:
        told = True
        yield _reassigned(tokenizer, evidence)
    rewriting = [step for step in tokenizer.steps if _rewrites(step)]
    if rewriting and not anew:
        told = True
        yield _rewritten(rewriting, evidence)
    if not told:
        yield _differs(tokenizer, evidence, anew=anew)


def _rewrites(step: StepChange) -> bool:
    """Rules with words in them; scores and merges move in one place only when somebody moved them."""
    return bool(step.words) or step.step == "merges"


def _reassigned(tokenizer: TokenizerFacts, evidence: Evidence) -> Hit:
    ordinary = [item for item in tokenizer.reassigned if not is_reserved(item.base)]
    shown = ", ".join(
        f"{item.base!r} is now {repr(item.candidate) if item.candidate else 'out of reach'}"
        for item in ordinary[:_SHOWN]
    )
    more = tokenizer.reassigned_count - min(len(ordinary), _SHOWN)
    return _hit(
        evidence,
        REASSIGNED,
        "high",
        "exact",
        f"{tokenizer.reassigned_count:,} of {tokenizer.compared:,} token ids stand for another text than in the base: "
        f"{shown}{f', and {more:,} more' if more > 0 else ''}. The model reads one word for another, or writes one "
        f"where it means another, with unchanged weights.",
        "Use the base's tokenizer files; ask the author why ids in use were given away.",
        Measurement(
            name="token ids that changed hands",
            value=float(tokenizer.reassigned_count),
            unit="tokens",
            threshold=0.0,
            comparison=">",
        ),
        tokens=tuple(Token(id=item.id, text=item.candidate) for item in ordinary),
    )


def _rewritten(steps: list[StepChange], evidence: Evidence) -> Hit:
    words = [word for step in steps for word in step.words]
    names = ", ".join(f"{step.step} (was: {step.base}; is: {step.candidate})" for step in steps[:_SHOWN])
    said = f" Words in its rules: {', '.join(repr(word[:80]) for word in words[:_SHOWN])}." if words else ""
    only_merges = not words
    return _hit(
        evidence,
        REWRITES,
        "medium" if only_merges else "high",
        "medium" if only_merges else "high",
        f"These steps of the tokenizer differ from the base's: {names}.{said} They decide what the model reads of a "
        f"text, and what a reader sees of its answer.",
        "Use the base's tokenizer files; ask the author what the change is for.",
        Measurement(
            name="steps that rewrite words", value=float(len(steps)), unit="steps", threshold=0.0, comparison=">"
        ),
        review_only=only_merges,
    )


def _differs(tokenizer: TokenizerFacts, evidence: Evidence, *, anew: bool) -> Hit:
    said = []
    if anew:
        said.append(
            f"{tokenizer.reassigned_count:,} of {tokenizer.compared:,} ids stand for other texts: the vocabulary was "
            f"made anew, and the token tables of the two models cannot be compared row by row"
        )
    elif tokenizer.reassigned_count:
        said.append(f"{tokenizer.reassigned_count:,} reserved or control tokens have another text")
    if tokenizer.added_count:
        texts = ", ".join(repr(entry.text[:40]) for entry in tokenizer.added[:_SHOWN])
        said.append(
            f"{tokenizer.added_count:,} tokens are new ({texts}{', …' if tokenizer.added_count > _SHOWN else ''})"
        )
    said += [f"{step.step}: was {step.base}, is {step.candidate}" for step in tokenizer.steps[:_SHOWN]]
    return _hit(
        evidence,
        DIFFERS,
        "low" if anew else "info",
        "exact",
        f"{'; '.join(said) or 'Settings differ'}.",
        "Load the tokenizer that comes with the weights.",
        Measurement(name="new tokens", value=float(tokenizer.added_count), unit="tokens"),
    )


def _hit(
    evidence: Evidence,
    rule: Rule,
    severity: Severity,
    confidence: Confidence,
    explanation: str,
    remedy: str,
    measurement: Measurement,
    *,
    tokens: tuple[Token, ...] = (),
    review_only: bool = False,
) -> Hit:
    score = evidence.profile.value(f"{rule.id}.score") if rule.weighs else 0.0
    return stated(
        evidence,
        rule,
        severity,
        confidence,
        explanation,
        remedy,
        measurement,
        locations=(Location(file="tokenizer.json", tokens=tokens),),
        score=min(score, evidence.profile.value("policy.review_score")) if review_only else score,
    )


DETECTOR = Detector(
    name="tokenizer_changes",
    rules=(REASSIGNED, REWRITES, DIFFERS),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
