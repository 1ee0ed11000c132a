"""Defaults that decide what a model may say: forced and suppressed tokens, where an answer ends, special roles.

Sampling temperature and its kin are a matter of taste and a note. Control and language tokens are what such lists are
for; an ordinary word in them is not.
"""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Location, Measurement, Token
from audit.stated import listed, stated
from scanner.side.records import ValueChange
from scanner.token_models import is_reserved

FORCES = Rule(id="HA721", title="Generation defaults force, suppress or stop at ordinary words", severity="high")
DEFAULTS = Rule(id="HA722", title="Defaults differ from the base's", severity="info", weighs=False)

_IDS = frozenset(
    {
        "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens",
        "bad_words_ids", "force_words_ids", "sequence_bias", "eos_token_id", "decoder_start_token_id",
    }
)  # fmt: skip
_TEXTS = frozenset({"stop_strings", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"})
_CODE = frozenset({"custom_generate", "trust_remote_code"})
_SHOWN = 5


def run(evidence: Evidence) -> Iterator[Hit]:
    """One finding for each key that names ordinary words, one note for all other differences, where a base was read."""
    notes = []
    for change in evidence.side.values:
        words = _words(change, evidence)
        if words is None:
            notes.append(change)
        else:
            yield _forces(change, words, evidence)
    if notes and _has_base(evidence):
        yield _note(notes, evidence)


def _has_base(evidence: Evidence) -> bool:
    """Whether the defaults were held against a base's: neither against none, nor against a refuted one."""
    return evidence.base is not None and evidence.lineage.status != "contradicted"


def _words(change: ValueChange, evidence: Evidence) -> list[str] | None:
    """The ordinary words that a key names anew, or None when there are none."""
    if change.key in _TEXTS:
        words = [word for word in change.words if not is_reserved(word) and any(map(str.isalpha, word))]
        # "User:" and "### Instruction:" are how plain chat formats begin a turn, where an answer may well stop.
        return [word for word in words if not word.rstrip().endswith(":")] or None
    if change.key not in _IDS:
        return None
    texts = evidence.tokens.texts if evidence.tokens else None
    if change.key == "forced_decoder_ids":
        # Pairs of place and token: the places count up from 1.
        ids = tuple(token for token in change.ids if token > len(change.ids))
    else:
        ids = change.ids
    if texts is None:
        return [f"token {token}" for token in ids] if ids and change.key != "eos_token_id" else None
    named = [(token, texts[token]) for token in ids if 0 <= token < len(texts)]
    words = [text for _, text in named if not is_reserved(text) and any(map(str.isalpha, text))]
    return words or None


def _forces(change: ValueChange, words: list[str], evidence: Evidence) -> Hit:
    before = f"; in the base it is {change.base or 'not set'}" if _has_base(evidence) else ""
    texts = evidence.tokens.texts if evidence.tokens else ()
    tokens = tuple(Token(id=i, text=texts[i]) for i in change.ids if 0 <= i < len(texts))
    return stated(
        evidence,
        FORCES,
        FORCES.severity,
        "high" if evidence.tokens else "low",
        f"{change.key} in {change.file} is {change.candidate} and names "
        f"{listed((repr(word[:40]) for word in words), most=_SHOWN)}{before}. It acts on every answer of whoever loads "
        f"the model with its defaults, and leaves the weights as they were.",
        "Set this key to the base's value; ask the author what it is for.",
        Measurement(name="ordinary words named", value=float(len(words)), unit="tokens", threshold=0.0, comparison=">"),
        locations=(Location(file=change.file, tokens=tokens[: int(evidence.profile.value("findings.most_rows"))]),),
        discriminator=f"{change.file}:{change.key}",
    )


def _note(changes: list[ValueChange], evidence: Evidence) -> Hit:
    shown = "; ".join(
        f"{change.key[:60]}: {(change.base or 'not set')[:60]} → {(change.candidate or 'not set')[:60]}"
        for change in changes[:_SHOWN]
    )
    more = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    code = any(change.key in _CODE for change in changes)
    files = dict.fromkeys(change.file for change in changes)
    return stated(
        evidence,
        DEFAULTS,
        "low" if code else "info",
        "exact",
        f"Settings of {', '.join(files)} differ from the base's: {shown}{more}.",
        "Nothing, where the settings suit; they change how the model is used, not what it is.",
        Measurement(name="settings that differ", value=float(len(changes)), unit="settings"),
        locations=tuple(Location(file=file) for file in files),
        score=0.0,
    )


DETECTOR = Detector(
    name="generation_defaults",
    rules=(FORCES, DEFAULTS),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
