"""Remembers the reports of earlier jobs in a folder, so that a scheduled audit scans only what has changed.

The folder is meant for a cache between jobs. A report is used again when the model and its base are at the commits it
names, and tool, base, threshold for failing and baseline are the same; whatever looks damaged is as if it was not
there.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from audit.records import AuditReport
from pipelines.actions.inputs import Target
from pipelines.command import load_baseline
from pipelines.output import write_document
from pipelines.settings import tool_version
from scanner.errors import HubAuditError
from scanner.hub import Hub
from scanner.refs import parse_spec

INDEX = "index.json"
LASTING = frozenset({0, 1})
"""Exit codes of scans that concluded; the others are tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A scan of an earlier job: what its report and exit code depend on, and where the report is."""

    key: str
    exit_code: int
    heads: Mapping[str, str]
    report: str


def today() -> date:
    """Return the present day, UTC."""
    return datetime.now(UTC).date()


class Memory:
    """The reports of earlier jobs; with no folder, none."""

    def __init__(self, folder: Path | None, *, baseline: Path | None) -> None:
        """Read what is there.

        Raises:
            BadBaseline: the baseline is none.
            OSError: the folder cannot be made, or the baseline not be read.
        """
        self._folder = folder
        day = today()
        # An acceptance that has ended since changes the outcome, though the file is the same.
        self._baseline = [
            [entry.fingerprint, entry.model or "", entry.reason, entry.expires.isoformat(), entry.holds(day)]
            for entry in load_baseline(baseline)
        ]
        self._known: dict[str, Remembered] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._known = _read_index(folder / INDEX)

    def recall(self, target: Target, hub: Hub, into: Path) -> int | None:
        """Copy the report of an unchanged model to ``into`` and return its exit code; None when it is to be scanned."""
        known = self._known.get(target.model)
        if self._folder is None or known is None or known.key != self._key(target):
            return None
        try:
            for spec, commit in known.heads.items():
                if hub.resolve(parse_spec(spec, endpoint=hub.endpoint)).revision != commit:
                    return None
            shutil.copyfile(self._folder / known.report, into)
        except (HubAuditError, OSError):
            return None
        return known.exit_code

    def keep(self, target: Target, report: AuditReport, path: Path, exit_code: int) -> None:
        """Remember a scan that concluded.

        Raises:
            OSError: the folder is not writable.
        """
        subject, base = report.subject, report.lineage.base
        local = subject.repo_id is None or (base is not None and base.repo_id is None)
        if self._folder is None or exit_code not in LASTING or local:
            return
        heads = {target.model: subject.revision or ""}
        if base is not None and base.repo_id is not None:
            heads[target.base or base.repo_id] = base.revision or ""
        name = f"{hashlib.sha256(target.model.encode()).hexdigest()[:32]}.json"
        write_document(path.read_bytes(), str(self._folder / name))
        self._known[target.model] = Remembered(key=self._key(target), exit_code=exit_code, heads=heads, report=name)
        index = {model: asdict(known) for model, known in self._known.items()}
        write_document(json.dumps(index, indent=1, sort_keys=True), str(self._folder / INDEX))

    def _key(self, target: Target) -> str:
        parts: list[object] = [tool_version(), target.base or "", target.fail_on, self._baseline]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read_index(path: Path) -> dict[str, Remembered]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(model): _remembered(entry) for model, entry in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _remembered(entry: Mapping[str, object]) -> Remembered:
    heads, report, code = entry["heads"], str(entry["report"]), entry["exit_code"]
    if not isinstance(heads, dict) or "/" in report or not isinstance(code, int) or code not in LASTING:
        raise ValueError(report)
    return Remembered(
        key=str(entry["key"]),
        exit_code=code,
        heads={str(spec): str(commit) for spec, commit in heads.items()},
        report=report,
    )
