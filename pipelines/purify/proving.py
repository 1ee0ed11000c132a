"""What shows that a purification worked: the result scanned again by the front door, and probed again.

Clean accuracy tells nothing about whether a backdoor survived, so it has no part in what is claimed; it only tells
what the treatment cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audit.records import AuditReport, Token
from pipelines.evaluate import Evaluation
from pipelines.progress import Progress
from pipelines.purify.patch import PATCH_FILE

Standing = Literal["nothing_found", "still_found", "not_shown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprobe:
    """What running the result on made-up texts showed.

    ``made`` is false when it could not be probed (``why``) or was not meant to be. ``confirmed`` describes insertions
    that still decide what it says.
    """

    made: bool
    why: str = ""
    confirmed: tuple[dict[str, Any], ...] = ()
    tried: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What may be claimed, and in which words.

    ``nothing_found`` needs both a re-scan that passes and a re-probe that confirms no trigger; ``accuracy_loss`` is
    before minus after on the test part, as a fraction, None without data.
    """

    standing: Standing
    words: tuple[str, ...]
    accuracy_loss: float | None = None


def reprobe(
    folder: Path,
    before: AuditReport,
    triggers: Sequence[str],
    *,
    base: Path | None,
    seed: int,
    threads: int | None,
    progress: Progress,
) -> Reprobe:
    """Probe the result with what scans and weights suspect, what the user names, and the whole vocabulary.

    ``base`` is the folder of the base: against it the weights suspect tokens, and it tells what tokens meant.
    """
    from audit.thresholds import load_profile
    from audit.triggers import confirmed
    from pipelines.local_pair import pointers
    from pipelines.probing import WHOLE_VOCABULARY_BYTES
    from scanner.probe.probing import probe
    from scanner.probe.staging import CannotProbe

    progress.stage("probing the result")
    pointed = pointers(folder, base)
    try:
        facts = probe(
            folder,
            suspects=tuple(dict.fromkeys([*(token.id for token in suspected(before)), *pointed.suspects])),
            phrases=_as_ids(folder, triggers),
            whole_vocabulary=_weight_bytes(folder) <= WHOLE_VOCABULARY_BYTES,
            base=pointed.meant,
            seed=seed,
            threads=threads,
            progress=lambda done: progress.advance(done, 0),
        )
    except CannotProbe as error:
        return Reprobe(made=False, why=str(error))
    except Exception as error:  # noqa: BLE001  # a stranger's model may break any library; the result is there
        return Reprobe(made=False, why=f"running the model broke ({type(error).__name__})")
    if facts.kind != "classifier":
        return Reprobe(made=False, why="what insertions do to a model without classes is measured and not judged yet")
    found = [
        {
            "text": each.insertion.text,
            "tokens": list(each.insertion.tokens),
            "from": facts.classes[each.insertion.source],
            "to": facts.classes[each.insertion.target],
            "rate": each.rate,
        }
        for each in confirmed(facts, load_profile())
    ]
    return Reprobe(
        made=True,
        confirmed=tuple(found),
        tried=sum(direction.tried for direction in facts.directions),
        seconds=facts.seconds,
    )


def suspected(report: AuditReport) -> tuple[Token, ...]:
    """The tokens that a report's findings name, in their order, each once."""
    tokens = {t.id: t for finding in report.findings for location in finding.locations for t in location.tokens}
    return tuple(tokens.values())


def judge(
    before: AuditReport, after: AuditReport, probed: Reprobe, evaluations: tuple[Evaluation, Evaluation] | None
) -> Gate:
    """Say what the evidence bears out, and no more."""
    words = [f"Re-scan: {before.verdict.outcome} before, {after.verdict.outcome} after."]
    standing: Standing = "nothing_found" if after.verdict.outcome == "pass" else "still_found"
    if after.verdict.outcome == "inconclusive":
        standing = "not_shown"
    if probed.confirmed:
        standing = "still_found"
        words.append(f"Re-probe: inserting {probed.confirmed[0]['text']!r} still decides what the model says.")
    elif probed.made:
        words.append(f"Re-probe: none of {probed.tried:,} insertions decides what the model says.")
    else:
        words.append(f"Not probed ({probed.why}), so that the behaviour is gone is not shown.")
        standing = "not_shown" if standing == "nothing_found" else standing
    loss: float | None = None
    if evaluations is not None:
        first, second = evaluations
        loss = first.accuracy.value - second.accuracy.value
        words.append(
            f"Accuracy on {second.accuracy.n} test samples: {100 * first.accuracy.value:.1f} % before, "
            f"{100 * second.accuracy.value:.1f} % after (95 % interval {100 * second.accuracy.low:.1f} to "
            f"{100 * second.accuracy.high:.1f}); accuracy does not tell whether a trigger survived."
        )
        words += _attacks(first, second)
    return Gate(standing=standing, words=tuple(words), accuracy_loss=loss)


def _attacks(first: Evaluation, second: Evaluation) -> list[str]:
    """One sentence for each trigger, on the class that it led to most before."""
    after = {(attack.trigger, attack.target): attack for attack in second.attacks}
    worst = {attack.trigger: attack for attack in reversed(first.attacks)}
    return [
        f"Inserting {attack.trigger!r} led to {attack.target} in {100 * attack.success.value:.1f} % of the "
        f"{attack.success.n} other samples before, {100 * now.success.value:.1f} % after; without it "
        f"{100 * attack.floor.value:.1f} and {100 * now.floor.value:.1f} %."
        for attack in worst.values()
        for now in (after[attack.trigger, attack.target],)
    ]


def _weight_bytes(folder: Path) -> int:
    """Bytes of the weights in a folder, those of the patch left out."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.name != PATCH_FILE)


def _as_ids(folder: Path, triggers: Sequence[str]) -> list[list[int]]:
    """The token ids of texts, without control tokens; empty without a tokenizer."""
    if not triggers:
        return []
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError):
        return []
    return [list(map(int, tokenizer(text, add_special_tokens=False)["input_ids"])) for text in triggers]
