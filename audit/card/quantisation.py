"""The quantiser that name, tags and card declare against configuration, files and tensors."""

import re
from collections.abc import Iterator

from audit.card.plain import joined, short, words
from audit.card.prose import read_prose
from audit.card.stored import kept_formats, kept_schemes
from audit.evidence import Evidence
from audit.records import CardClaim, ClaimStatus

_METHODS = {
    "gguf": "gguf", "gptq": "gptq", "awq": "awq", "bnb": "bitsandbytes", "bitsandbytes": "bitsandbytes", "fp8": "fp8",
    "exl2": "exl2", "aqlm": "aqlm", "hqq": "hqq",
}  # fmt: skip
_BITS = re.compile(r"(?i)([2-8])[- ]?bits?")
_GGUF_FILE = re.compile(r"(?i)[._-](I?Q[2-8](?:_[A-Z0-9]{1,3}){0,2}|F16|F32|BF16)(?=[._-])")
_READ = frozenset({"gguf", "gptq", "awq", "bitsandbytes", "fp8"})
"""Methods whose storage is recognised here; of the others nothing can be said."""
_SHARES_STORAGE = (frozenset({"gptq", "awq", "compressed-tensors", "auto-round"}),
                   frozenset({"fp8", "compressed-tensors", "modelopt", "fbgemm_fp8"}))  # fmt: skip
"""Formats in which the work of one method is published under the name of another."""


def quantisation(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare the method that the repository's name, the title and the tags declare with what is stored."""
    declared = _declared(evidence)
    if not declared:
        return
    status, observed = _judged(evidence, set(declared))
    yield CardClaim(
        claim="quantisation",
        declared=joined(tuple(f"{method} ({where})" for method, where in declared.items())),
        observed=short(observed),
        status=status,
    )


def bits(evidence: Evidence) -> Iterator[CardClaim]:
    """Compare "4-bit" in name, title and tags with the bits of the configured quantiser."""
    texts = (_own_name(evidence), read_prose(evidence.candidate.card.text).title or "", *_tags(evidence))
    said = {int(match.group(1)) for text in texts if (match := _BITS.search(text))}
    if len(said) != 1:
        return
    kept = _configured_bits(evidence)
    status: ClaimStatus
    if kept is None or evidence.candidate.adapter_config is not None:
        observed, status = "the configuration gives no number of bits", "not_checkable"
    else:
        observed, status = f"{kept} in config.json", "supported" if said == {kept} else "contradicted"
    yield CardClaim(claim="bits", declared=f"{next(iter(said))}-bit", observed=observed, status=status)


def _declared(evidence: Evidence) -> dict[str, str]:
    """Method → where it is declared; the name counts most."""
    found: dict[str, str] = {}
    title = read_prose(evidence.candidate.card.text).title or ""
    places = (("name", _own_name(evidence)), ("title", title), *(("tag", tag) for tag in _tags(evidence)))
    for where, text in places:
        for word in re.split(r"[^a-z0-9]+", text.lower()):
            if word in _METHODS:
                found.setdefault(_METHODS[word], where)
    return found


def _judged(evidence: Evidence, declared: set[str]) -> tuple[ClaimStatus, str]:
    if evidence.candidate.adapter_config is not None:
        return "not_checkable", "an adapter: the quantiser may be that of its base in training"
    there, seen = _observed(evidence)
    if len(declared) > 1:
        return "not_checkable", f"{seen}; several methods are declared"
    if declared & there or any(declared <= group and there & group for group in _SHARES_STORAGE):
        return "supported", seen
    if not there and not evidence.candidate.files:
        return "not_checkable", "the files were not listed"
    method = next(iter(declared))
    if method not in _READ or (not there and not kept_formats(evidence) and method != "gguf"):
        return "not_checkable", seen or "how the weights are stored was not read"
    return "contradicted", seen


def _observed(evidence: Evidence) -> tuple[set[str], str]:
    """The methods that are there, and in words how that shows."""
    there: set[str] = set()
    said: list[str] = []
    quantizer = (evidence.candidate.config or {}).get("quantization_config")
    method = quantizer.get("quant_method") if isinstance(quantizer, dict) else None
    if isinstance(method, str) and method:
        there.add(_METHODS.get(method.lower(), method.lower()))
        said.append(f"quant_method {method} in config.json")
    elif isinstance(quantizer, dict) and any(quantizer.get(k) is True for k in ("load_in_4bit", "load_in_8bit")):
        there.add("bitsandbytes")
        said.append("bitsandbytes in config.json")
    files = [entry.path for entry in evidence.candidate.files if entry.path.lower().endswith(".gguf")]
    if files:
        there.add("gguf")
        kinds = sorted({m.group(1).upper() for path in files if (m := _GGUF_FILE.search(path))})
        said.append(
            f"{len(files)} GGUF file{'s' if len(files) > 1 else ''}" + (f" ({', '.join(kinds[:6])})" if kinds else "")
        )
    schemes = kept_schemes(evidence)
    for scheme in schemes:
        there |= {known for word, known in _METHODS.items() if word in scheme.lower()}
    if schemes:
        said.append(f"tensors under {', '.join(sorted(schemes)[:3])}")
    formats = kept_formats(evidence)
    if any(name.startswith("F8") for name in formats):
        there.add("fp8")
    if formats:
        said.append(f"mostly {formats.most_common(1)[0][0]}")
    return there, "; ".join(said) or "no quantiser in config.json, and no GGUF file"


def _configured_bits(evidence: Evidence) -> int | None:
    quantizer = (evidence.candidate.config or {}).get("quantization_config")
    if not isinstance(quantizer, dict):
        return None
    value = quantizer.get("bits", quantizer.get("w_bit"))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    flags = {4: quantizer.get("load_in_4bit"), 8: quantizer.get("load_in_8bit")}
    return next((count for count, flag in flags.items() if flag is True), None)


def _own_name(evidence: Evidence) -> str:
    return (evidence.candidate.ref.repo_id or "").rpartition("/")[2]


def _tags(evidence: Evidence) -> tuple[str, ...]:
    """The card's own tags; the Hub adds others by itself."""
    return words((evidence.candidate.card.metadata or {}).get("tags"))[:200]
