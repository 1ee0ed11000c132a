"""The declared licence beside the base's: whether it may follow it, and the notices that the base's asks to keep."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from audit.card.licence_terms import Terms, terms_of
from audit.card.plain import joined, short, words
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus
from scanner.records import RepoFacts

CLAIM = "license"
INHERITED = "license (other bases)"
ON_FILE = "license file"
_FILES = ("license", "licence", "copying")
_WORST_FIRST: tuple[ClaimStatus, ...] = ("contradicted", "not_checkable", "supported")
_VERSION = re.compile(r"-?\d[\d.]*(?:-clause)?$")


def licence(evidence: Evidence) -> Iterator[CardClaim]:
    """Say whether a licence is declared and whether it may follow the base's.

    Contradicted only where the base's licence is known (``licences.json``), asks derived models to keep its terms or
    forbids commercial use, and the declared one is known to do otherwise. Anything else stays open: which licence may
    follow which is in the end a question for people.
    """
    declared = _declared(evidence.candidate.card.metadata)
    inherited = _declared(evidence.base.card.metadata) if evidence.base else ()
    gated = bool(evidence.base and evidence.base.hub.get("gated"))
    status: ClaimStatus = "not_checkable"
    if not declared:
        observed = "a licence file is present" if _has_file(evidence.candidate) else "no licence file either"
    elif not inherited:
        observed = "the base declares none" if evidence.base else "no base to compare with"
    elif evidence.lineage.status == "contradicted":
        observed = f"the base declares {joined(inherited)}, but it is not the base"
    elif {name.lower() for name in declared} == {name.lower() for name in inherited}:
        observed, status = f"the base declares {joined(inherited)}", "supported"
    else:
        status, why = _follows(declared, inherited)
        observed = f"the base declares {joined(inherited)}" + (f", {why}" if why else "")
    observed += "; access to the base is gated" if gated and inherited else ""
    yield CardClaim(claim=CLAIM, declared=joined(declared) or "none", observed=short(observed), status=status)


def earlier(evidence: Evidence) -> Iterator[CardClaim]:
    """Hold the declared licence against those of the models above the base and of further parents, as declared.

    What an owner did with a model of their own is theirs to say, so it stays open where an ancestor's owner has shared
    the base, a model between, or the candidate, and where a further parent's owner has shared the candidate.
    """
    declared = _declared(evidence.candidate.card.metadata)
    known = [ancestor for ancestor in evidence.card_context.ancestors if ancestor.licences]
    if not declared or not known or evidence.lineage.status == "contradicted":
        return
    line = [evidence.candidate.ref.name, *(evidence.lineage.chain or ())]
    judged: list[tuple[ClaimStatus, str]] = []
    for ancestor in known:
        same = {name.lower() for name in declared} == {name.lower() for name in ancestor.licences}
        status: ClaimStatus
        status, why = ("supported", "") if same else _follows(declared, ancestor.licences)
        below = line[: line.index(ancestor.name)] if ancestor.name in line else line[:1]
        if status == "contradicted" and _owner(ancestor.name) in {_owner(name) for name in below}:
            status, why = "not_checkable", f"{why}; its owner has shared a later model of this line"
        said = f"{ancestor.name} declares {joined(ancestor.licences)}" + (f", {why}" if why else "")
        judged.append((status, said))
    worst: ClaimStatus = next((s for s in _WORST_FIRST if s in {status for status, _ in judged}), "not_checkable")
    observed = "; ".join(said for status, said in judged if status == worst)
    yield CardClaim(claim=INHERITED, declared=joined(declared), observed=short(observed), status=worst)


def on_file(evidence: Evidence) -> Iterator[CardClaim]:
    """Hold the declared licence against the titles of the licence files; texts with no well-known title stay open."""
    declared = _declared(evidence.candidate.card.metadata)
    kept = evidence.card_context.licence_files
    if not declared or not kept:
        return
    named = tuple(dict.fromkeys(file.licence for file in kept if file.licence))
    status: ClaimStatus = "not_checkable"
    if {name.lower() for name in declared} & set(named):
        status = "supported"
    elif len(named) == 1 and len(named) == len(kept) and len(declared) == 1 and _is_another(declared[0], named[0]):
        status = "contradicted"
    observed = "; ".join(
        f"{file.path} begins as {file.licence}" if file.licence else f"{file.path} begins with no well-known title"
        for file in kept
    )
    yield CardClaim(claim=ON_FILE, declared=joined(declared), observed=short(observed), status=status)


def _is_another(declared: str, named: str) -> bool:
    """Whether two names are of different licences: versions and unversioned names of one (`bsd`, `gpl`) are not."""
    return terms_of(declared) is not None and _bare(declared) != _bare(named)


def _bare(name: str) -> str:
    """The name without its version: ``gpl-3.0`` → ``gpl``, ``bsd-3-clause`` → ``bsd``, all of RAIL one."""
    terms = terms_of(name)
    if terms is not None and terms.group == "rail":
        return "rail"
    return _VERSION.sub("", name.strip().lower())


def _owner(name: str) -> str:
    return name.split("/", maxsplit=1)[0].casefold() if "/" in name else ""


def notices(evidence: Evidence) -> Iterator[CardClaim]:
    """Say which of the notices that the base's licence asks for are there; a missing one is named, not judged."""
    if evidence.base is None or evidence.lineage.status == "contradicted":
        return
    inherited = [terms for name in _declared(evidence.base.card.metadata) if (terms := terms_of(name))]
    if len(inherited) != 1:
        return
    terms = inherited[0]
    text = " ".join((evidence.candidate.card.text or "").lower().split())
    wanted = [(f"“{phrase}” in the card", phrase.lower() in text) for phrase in terms.asks]
    own = (evidence.candidate.ref.repo_id or "").rpartition("/")[2]
    if terms.name_begins and own:
        wanted.append(
            (f"a name that begins with {terms.name_begins}", own.lower().startswith(terms.name_begins.lower()))
        )
    if terms.copy:
        wanted.append(("a copy of the terms", _has_file(evidence.candidate)))
    kept = [name for name in terms.files if _has(evidence.base, (name.lower(),))]
    wanted += [(f"the base's {name} file", _has(evidence.candidate, (name.lower(),))) for name in kept]
    if wanted:
        missing = [what for what, there in wanted if not there]
        yield CardClaim(
            claim="license notices",
            declared=joined(tuple(what for what, there in wanted if there)) or "none found",
            observed=short(
                f"{terms.id} ({terms.clause}) also asks for: {'; '.join(missing)}"
                if missing
                else f"what {terms.id} ({terms.clause}) asks for was found"
            ),
            status="not_checkable" if missing else "supported",
        )


def _follows(declared: tuple[str, ...], inherited: tuple[str, ...]) -> tuple[ClaimStatus, str]:
    """Whether the declared licence may follow the base's, and why; several on either side are left to people."""
    if len(declared) > 1 or len(inherited) > 1:
        return "not_checkable", ""
    own, base = terms_of(declared[0]), terms_of(inherited[0])
    if base is None:
        return "not_checkable", ""
    if base.kind == "permissive":
        return "supported", f"which lets other terms follow ({base.clause})"
    if own is None:
        return "not_checkable", f"which asks something of derived models ({base.clause})"
    return _strict(own, base)


def _strict(own: Terms, base: Terms) -> tuple[ClaimStatus, str]:
    if base.kind == "no-derivatives":
        return "contradicted", f"which permits no sharing of modified versions ({base.clause})"
    if not base.commercial and own.commercial:
        return "contradicted", f"which permits no commercial use ({base.clause}); the declared one does"
    if own.group == base.group:
        return "not_checkable", f"of the same family; see {base.clause}"
    if own.kind == "permissive":
        keeps = "the same licence" if base.kind == "same" else "its terms to be passed on"
        return "contradicted", f"which asks for {keeps} ({base.clause}); the declared one does not"
    return "not_checkable", f"which asks something of derived models ({base.clause})"


def _declared(metadata: Mapping[str, Any] | None) -> tuple[str, ...]:
    return words((metadata or {}).get("license"))


def _has_file(facts: RepoFacts) -> bool:
    return _has(facts, _FILES)


def _has(facts: RepoFacts, beginnings: tuple[str, ...]) -> bool:
    return any(entry.path.lower().startswith(beginnings) and "/" not in entry.path for entry in facts.files)
