"""E-PUR: the embedding rows whose drift their token's frequency does not excuse go back to the base, without data.

Zhang et al. 2022 (Findings of EMNLP), tags as in ``embedding_rows``. It ends attacks that live in a row (embedding
poisoning); of poisoned training runs the rows tell, but do not carry the attack: there it changes nothing.
"""

from dataclasses import dataclass

from pipelines.purify.embedding_rows import ROWS, reset_suspects
from pipelines.purify.job import PurifyFailed, PurifyJob, PurifyResult
from pipelines.purify.states import open_treatment, put, result_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EPurOptions:
    """``rows``: how many rows are reset, the highest scores first."""

    rows: int = ROWS


def purify(job: PurifyJob) -> PurifyResult:
    """Reset the suspicious rows and nothing else.

    Raises:
        PurifyFailed: the model has no token embedding that the base shares.
    """
    options = job.options if isinstance(job.options, EPurOptions) else EPurOptions()
    treatment = open_treatment(job)
    pair = treatment.pair
    if pair is None or pair.embedding not in pair.base:
        raise PurifyFailed("E-PUR needs a token embedding that the base shares; choose another method.")
    log = reset_suspects(treatment.subject, job.candidate, pair, rows=options.rows)
    put(treatment.subject.model, pair.candidate)
    return result_of(job, treatment.subject.model, f"Reset {log['rows']} embedding rows to the base.", {"e_pur": log})
