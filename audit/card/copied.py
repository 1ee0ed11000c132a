"""A card that was written for another model: near-duplicate of the base's, or one that speaks of another as itself."""

import re
from collections.abc import Iterator

from audit.card.plain import joined, short
from audit.card.prose import SEARCHED, Prose, read_prose
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

CLAIM = "card is this model's own"
_WORDS = 5
"""Words of a shingle (Broder 1997, "On the resemblance and containment of documents", section 2)."""
_TELLING = 6
"""Letters and digits of a name that can be looked for."""
_MAX_WORDS = 30_000
_LOADED = re.compile(
    r"(?:from_pretrained|pipeline|SentenceTransformer|CrossEncoder|LLM|snapshot_download|hf_hub_download|create_model)"
    r"\([^()\n]{0,120}?[\"']([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})[\"']"
    r"|\b(?:model_id|model_name|model_path|model|checkpoint|repo_id)\s{0,2}=\s{0,2}"
    r"[\"']([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})[\"']"
)


def copied(evidence: Evidence) -> Iterator[CardClaim]:
    """Measure how much of the card stands in the base's, and which models its code loads.

    Contradicted when nearly all of it is the base's text and its own name is nowhere in it, or when both title and
    code are of one and the same other model that is not its base. Quoting the base's card below a head of one's own
    is common and fine.
    """
    own_id = evidence.candidate.ref.repo_id
    text = evidence.candidate.card.text
    if not text or own_id is None:
        return
    prose = read_prose(text)
    own = own_id.rpartition("/")[2]
    # A short name ("model") stands in any text, so that it tells nothing.
    telling = len(_key(own)) >= _TELLING
    names_itself = not telling or _key(own) in _key(f"{prose.body}\n{prose.code}")
    share, count = _containment(evidence, prose)
    profile = evidence.profile
    alike = share is not None and share >= profile.value("card.copied_similarity")
    long_enough = count >= profile.value("card.least_shingles")
    others = _others(evidence, prose)
    title = prose.title or ""
    speaks_for = [name for name in others if _key(name.rpartition("/")[2]) == _key(title)]
    said = [f"{100 * share:.0f} % of its phrases stand in the base's card"] if share is not None and long_enough else []
    said += [f"its code loads {joined(others)}"] if others else []
    status: ClaimStatus
    if not names_itself and ((alike and long_enough) or (speaks_for and len(others) == 1)):
        said.append("its own name does not occur")
        status = "contradicted"
    elif (long_enough and share is not None and not alike and not others) or (names_itself and not alike):
        status = "supported" if telling or said else "not_checkable"
        said = said or (["it names this model"] if telling else ["this model's name is too short to look for"])
    elif said:
        status = "not_checkable"
    else:
        return
    yield CardClaim(claim=CLAIM, declared=short(title or own), observed=short("; ".join(said)), status=status)


def _containment(evidence: Evidence, prose: Prose) -> tuple[float | None, int]:
    """Share of the card's shingles that stand in the base's card, in [0, 1], and how many there are."""
    mine = _shingles(f"{prose.body}\n{prose.code}")
    theirs = evidence.base.card.text if evidence.base else None
    if not mine or not theirs:
        return None, len(mine)
    base = read_prose(theirs)
    return len(mine & _shingles(f"{base.body}\n{base.code}")) / len(mine), len(mine)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text[:SEARCHED].lower())[:_MAX_WORDS]
    return {tuple(words[start : start + _WORDS]) for start in range(len(words) - _WORDS + 1)}


def _others(evidence: Evidence, prose: Prose) -> tuple[str, ...]:
    """Models that the code loads and that are neither this one nor a declared parent."""
    own_id = evidence.candidate.ref.repo_id or ""
    loaded = [match.group(1) or match.group(2) for match in _LOADED.finditer(prose.code)]
    if own_id.lower() in (name.lower() for name in loaded):
        return ()
    parents = {*evidence.candidate.card.base_models, *evidence.lineage.chain}
    parents |= {claim.value for claim in evidence.lineage.claims}
    parents |= {evidence.base.ref.name} if evidence.base else set()
    known = {name.lower() for name in parents}
    return tuple(dict.fromkeys(name for name in loaded if name.lower() not in known))[:10]


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())
