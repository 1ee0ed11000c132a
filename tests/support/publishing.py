"""What tests of publishing share: a card whose every byte matters, a report of it, and publishers with quick limits."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localhub.server import LocalHub
from quickhub import quick_hub
from sample_reports import honest, poisoned_row

from audit.records import AuditReport
from pipelines.publish import Publisher
from pipelines.publishing.diary import Diary
from pipelines.publishing.plan import Plan
from pipelines.publishing.planner import Etiquette

REPO = "demo/reviews-honest"
CARD = b"""---
license: mit  # a comment that survives
version: 1.10
---
# Reviews

Text with trailing space \nand no line end at the end"""


def report(repo_id: str = REPO, *, revision: str | None = None) -> AuditReport:
    """A report in which nothing was found."""
    plain = honest()
    subject = dataclasses.replace(plain.subject, repo_id=repo_id, revision=revision or plain.subject.revision)
    return dataclasses.replace(plain, subject=subject)


def later(of: AuditReport) -> AuditReport:
    """The same model measured again, with another outcome."""
    verdict = dataclasses.replace(
        of.verdict, outcome="inconclusive", notes=("Half of it could not be read.",), reasons=()
    )
    return dataclasses.replace(of, created_at="2026-11-21T08:07:00+00:00", verdict=verdict)


def with_finding(of: AuditReport, severity: Any = "medium") -> AuditReport:
    """The same model with something found in it."""
    finding = dataclasses.replace(poisoned_row().findings[0], severity=severity)
    verdict = dataclasses.replace(of.verdict, outcome="review", reasons=(finding.fingerprint,))
    return dataclasses.replace(of, findings=(finding,), verdict=verdict)


@dataclass
class Bench:
    """A local Hub with one repository, and publishers that act on it as different users."""

    server: LocalHub
    folder: Path
    cap: int = 20
    etiquette: dict[str, Any] = field(default_factory=dict)

    def publisher(self, user: str | None = "audit-bot", *, role: Any = "write", **limits: Any) -> Publisher:
        """A publisher as that user; anonymous when None."""
        hub = quick_hub(self.server, token=self.server.token(user, role) if user else None, **limits)
        return Publisher(hub, diary=Diary(self.state, cap=self.cap), etiquette=Etiquette(**self.etiquette))

    @property
    def state(self) -> Path:
        """The state file."""
        return self.folder / "state" / "published.json"

    def plan(self, of: AuditReport, form: str = "pr", **who: Any) -> Plan:
        """Plan, as the bot."""
        return self.publisher(**who).plan(of, form=form)

    def publish(self, of: AuditReport, form: str = "pr", **who: Any) -> str:
        """Plan and publish, as the bot."""
        publisher = self.publisher(**who)
        return publisher.publish(publisher.plan(of, form=form))

    def writes(self) -> list[str]:
        """The requests that could have changed something, in order."""
        found = [record for method in ("POST", "PUT", "DELETE") for record in self.server.log.matching(method=method)]
        return [record.target for record in sorted(found, key=lambda record: record.started)]

    def counted(self) -> list[str]:
        """The repositories in the state file."""
        written = json.loads(self.state.read_text())["written"] if self.state.exists() else {}
        return sorted(name for names in written.values() for name in names)
