"""Publishes the results of a fleet as a dataset on the Hub: shown first, written only when told to.

The table holds what the reports say of each repository, so it discloses findings. It is therefore private unless asked
for otherwise, and a public one that holds severe findings needs ``--disclose``, as a public report would.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from pipelines.export import export_jsonl, export_parquet
from pipelines.ledger_views import LedgerReader
from pipelines.settings import tool_version
from reports.numbers import count
from reports.safe_text import clean_line
from scanner.errors import BadReference, CouldNotConclude
from scanner.refs import as_repo_id

SEVERE = ("high", "critical")
TITLE = "Update the results of a fleet of weight audits"
CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What publishing would write. ``blocked`` says why it may not, or is None. Paths are those in the dataset."""

    repo_id: str
    private: bool
    card: str
    table: str
    rows: int
    severe: int
    blocked: str | None

    @property
    def shown(self) -> str:
        """The change, for a person to look at."""
        kind = "private" if self.private else "PUBLIC"
        lines = [
            f"dataset {self.repo_id} ({kind}; made if it does not exist)",
            f"  {self.table}  {count(self.rows)} rows, {count(self.severe)} of them with severe findings",
            f"  {CARD}",
            "",
            *(f"    {line}" for line in self.card.splitlines()),
        ]
        return "\n".join(lines) + "\n"


def plan_dataset(reader: LedgerReader, repo_id: str, *, private: bool, disclose: bool, parquet: bool) -> DatasetPlan:
    """Compose what publishing would write; contacts nobody.

    Raises:
        BadReference: the name cannot be a dataset.
    """
    if as_repo_id(repo_id) != repo_id or "/" not in repo_id:
        raise BadReference(f"--publish-to {clean_line(repo_id)!a} is not a dataset; give org/name.")
    severe = sum(any(note["severity"] in SEVERE for note in row["findings"]) for row in reader.results())
    blocked = None
    if severe and not private and not disclose:
        blocked = (
            f"{count(severe)} repositories have severe findings, which are not made public without --disclose; "
            "tell their owners first, or publish without --public."
        )
    counts, table = reader.counts(), f"data/results.{'parquet' if parquet else 'jsonl'}"
    return DatasetPlan(
        repo_id=repo_id,
        private=private,
        card=_card(reader.verdicts(), counts.total, table),
        table=table,
        rows=sum(1 for _ in reader.jobs()),
        severe=severe,
        blocked=blocked,
    )


def publish_dataset(reader: LedgerReader, plan: DatasetPlan, *, endpoint: str, token: str | None) -> str:
    """Write what the plan shows, in one commit; return its address.

    Raises:
        CouldNotConclude: the plan is blocked, or the Hub refused.
    """
    if plan.blocked:
        raise CouldNotConclude(plan.blocked)
    api = HfApi(endpoint=endpoint, token=token, library_name="hubaudit", library_version=tool_version())
    with tempfile.TemporaryDirectory(prefix="hubaudit-") as folder, _refusals(plan.repo_id):
        table = Path(folder) / Path(plan.table).name
        (export_parquet if plan.table.endswith(".parquet") else export_jsonl)(reader, table)
        api.create_repo(plan.repo_id, repo_type="dataset", private=plan.private, exist_ok=True)
        if not plan.private or not _is_public(api, plan.repo_id):
            info = api.create_commit(
                plan.repo_id,
                [
                    CommitOperationAdd(path_in_repo=plan.table, path_or_fileobj=table),
                    CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=plan.card.encode()),
                ],
                commit_message=TITLE,
                repo_type="dataset",
            )
            return str(info.commit_url)
    raise CouldNotConclude(
        f"{plan.repo_id} exists and is public; make it private, choose another name, or publish with --public."
    )


def _is_public(api: HfApi, repo_id: str) -> bool:
    """Whether a dataset can be seen by anybody: one that existed before keeps its visibility."""
    return not api.dataset_info(repo_id).private


def _card(verdicts: Mapping[str, int], total: int, table: str) -> str:
    """Return the dataset's card: our own words and numbers, nothing that a stranger wrote."""
    lines = "\n".join(f"| {name} | {count(n)} |" for name, n in verdicts.items())
    return f"""---
tags:
- hubaudit
configs:
- config_name: default
  data_files: {table}
---

# Results of a fleet of weight audits

{count(total)} repositories, compared with the base models that they declare by hubaudit {tool_version()}.

| verdict | scans |
|---|---|
{lines}

One row per repository: the commit that was scanned, its base and the base's commit, the verdict, its score in [0, 1],
the measured rate of clean fine-tunes that score at least as high, how much was compared, and the findings.

A finding is something measured that differs from ordinary fine-tuning or from what the card declares. It says nothing
about intent, and a repository without findings has not been shown to be free of defects. `inconclusive` and `failed`
are not clean.
"""


class _refusals(contextlib.AbstractContextManager[None]):  # noqa: N801
    """Turn the client's errors into ours, each with what to do next."""

    def __init__(self, repo_id: str) -> None:
        self._repo_id = repo_id

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HFValidationError):
            raise BadReference(f"{self._repo_id!a} cannot be a dataset; give org/name.") from error
        if isinstance(error, HfHubHTTPError):
            said = clean_line(error.server_message or "no reason given")
            raise CouldNotConclude(
                f"The Hub refused to write {self._repo_id} ({said}); use a token that may (HF_TOKEN)."
            ) from error
