"""Runs the probe for a scan: decides whether this model is one to run, fetches it, and turns refusals into skips."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from audit.suspects import suspects
from pipelines.adapted_model import CLASSIFIER, LANGUAGE_MODELS, NothingToRun, adapted
from pipelines.progress import Progress
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.meanings import base_meanings
from scanner.probe.budget import ASKED
from scanner.probe.probing import DEFAULT_LIMITS, ProbeLimits, probe
from scanner.probe.records import ProbeFacts
from scanner.probe.staging import staged
from scanner.records import F32, DriftFacts, RepoFacts, Skip, TokenTable

WHOLE_VOCABULARY_BYTES = 200_000_000
"""Of a classifier's weights: up to here the whole vocabulary is tried without being asked for, with 90 MB in about ten
seconds on one core."""
CAUSAL_VOCABULARY_BYTES = 30_000_000
"""Of a language model's weights: each try scores all of its vocabulary, so the same work is done with fewer of them."""
CLASSIFIERS = (CLASSIFIER,)
"""Ends of the architectures that are run without being asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was measured, or the skip that says why nothing was. Neither when the model is of no kind that is run."""

    facts: ProbeFacts | None = None
    skip: Skip | None = None


def probe_candidate(
    facts: RepoFacts,
    hub: Hub,
    *,
    drift: DriftFacts | None,
    tokens: TokenTable | None,
    asked: bool,
    progress: Progress,
    limits: ProbeLimits = DEFAULT_LIMITS,
    threads: int | None = None,
    seed: int = 0,
    base: RepoFacts | None = None,
) -> Probed:
    """Probe the model of a scan.

    Args:
        facts: of the pinned repository or folder; a separate adapter is put on its base first.
        hub: fetches what is needed to run it.
        drift: what moved; says what the weights suspect.
        tokens: the vocabulary, for frequencies.
        asked: true when the user asked for the probe: then any model that can be run is, encoders without a head too,
            and the whole vocabulary is tried whatever the size, with ten times the usual budget of tokens.
        progress: hears the stages.
        limits: what it may cost.
        threads: that run texts side by side; the probe's own choice when None.
        seed: draws carriers and control words.
        base: what a separate adapter belongs on; its embedding tells what the tokens meant before.
    """
    suspected = suspects(drift, tokens)
    weighty = base if facts.adapter_config is not None and base is not None else facts
    if not asked and not is_probed(weighty, suspected=bool(suspected), adapter=facts.adapter_config is not None):
        return Probed()
    if asked and limits.work is not None:
        limits = replace(limits, work=limits.work * ASKED)
    try:
        progress.stage("fetching the model to run it")
        with _placed(facts, base, hub, limits, progress) as folder:
            progress.stage("probing the model")
            return Probed(
                facts=probe(
                    folder,
                    suspects=suspected,
                    whole_vocabulary=asked or _is_small(weighty),
                    base=_meant(base, tokens, hub, weighty),
                    limits=limits,
                    threads=threads,
                    seed=seed,
                )
            )
    except NothingToRun as error:
        return Probed(skip=Skip(what="probe", why=str(error))) if asked else Probed()
    except HubAuditError as error:
        return Probed(skip=Skip(what="probe", why=str(error)))
    except Exception as error:  # noqa: BLE001  # a stranger's model may break any library; the scan goes on
        return Probed(skip=Skip(what="probe", why=f"running the model broke ({type(error).__name__})"))


def _placed(
    facts: RepoFacts, base: RepoFacts | None, hub: Hub, limits: ProbeLimits, progress: Progress
) -> AbstractContextManager[Path]:
    """The folder from which the model is run."""
    if facts.adapter_config is not None and base is not None:
        return adapted(facts, base, hub, limit_bytes=limits.weight_bytes, progress=progress.advance)
    return staged(facts, hub, limit_bytes=limits.weight_bytes, progress=progress.advance)


def _meant(base: RepoFacts | None, tokens: TokenTable | None, hub: Hub, weighty: RepoFacts) -> F32 | None:
    """What the tokens meant in the base; of models without classes nothing is held against it."""
    return None if base is None or _is_language_model(weighty) else base_meanings(tokens, base, hub)


def is_probed(facts: RepoFacts, *, suspected: bool, adapter: bool = False) -> bool:
    """Whether a model is of a kind that is run without being asked for; whether it is too large is seen later.

    Args:
        facts: of the pinned repository or folder, of the base for an adapter.
        suspected: whether the weights suspect any token: without that, of a language model that is too large for its
            whole vocabulary, there would be nothing to try, and nothing is fetched.
        adapter: whether a separate adapter was put on the model. What it makes of its base is seen when it is opened;
            a larger base is fetched whole only when asked for, since the comparison reads a part of it alone.
    """
    if facts.adapter_config is not None:
        return False
    if adapter:
        return _is_small(facts)
    name = _architecture(facts)
    return name.endswith(CLASSIFIERS) or (_is_language_model(facts) and (suspected or _is_small(facts)))


def _is_language_model(facts: RepoFacts) -> bool:
    return _architecture(facts).endswith(LANGUAGE_MODELS)


def _is_small(facts: RepoFacts) -> bool:
    """Whether the whole vocabulary is tried unasked."""
    most = CAUSAL_VOCABULARY_BYTES if _is_language_model(facts) else WHOLE_VOCABULARY_BYTES
    return sum(e.size_bytes for e in facts.files if e.path.endswith(".safetensors")) <= most


def _architecture(facts: RepoFacts) -> str:
    named = (facts.config or {}).get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
