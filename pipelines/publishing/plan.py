"""What publishing one report would do, decided before anything is written; no request is made here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from audit.records import SEVERITIES, AuditReport, Severity
from pipelines.publishing.hub_writer import Thread

Form = Literal["section", "pr", "discussion"]
Step = Literal["nothing", "commit", "open", "update", "close", "replace"]
Block = Literal["opted_out", "not_allowed", "severe", "read_only", "other_thread"]

FORMS: tuple[Form, ...] = ("section", "pr", "discussion")
README = "README.md"
SEVERE: Severity = "high"
"""From this severity on, findings are told to the owner in private first."""

_REASONS = re.compile(r"<!-- hubaudit:reasons((?: [0-9a-f]{8,64})*) -->")
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What publishing would change, down to the byte.

    ``step`` is the one thing to be done: commit to the main branch, open a thread, update ours, close it because its
    findings are gone, replace a pull request that can no longer be merged, or nothing. ``shown`` is what a person is
    asked to look at; ``blocked`` says why nothing may be written (``block`` is the kind of reason), or is None.
    ``after`` is made from the README at commit ``head``. ``notes`` are remarks for the person who publishes.
    ``bothers`` is true when the repository is neither ours nor on the allow-list, so that the daily cap counts.
    """

    repo_id: str
    form: Form
    step: Step
    shown: str
    title: str
    body: str
    before: bytes | None = None
    after: bytes | None = None
    head: str = ""
    thread: Thread | None = None
    farewell: str = ""
    block: Block | None = None
    blocked: str | None = None
    notes: tuple[str, ...] = ()
    bothers: bool = True

    @property
    def changes(self) -> bool:
        """True when publishing would write something."""
        return self.step != "nothing"


def severe_findings(report: AuditReport) -> bool:
    """Whether any finding is of the severity that is told to the owner in private first."""
    return any(SEVERITIES.index(finding.severity) >= SEVERITIES.index(SEVERE) for finding in report.findings)


def with_reasons(body: str, report: AuditReport) -> str:
    """Return a thread's text with the fingerprints of the deciding findings hidden in it, for the run that closes it.

    Only hexadecimal fingerprints are written, so that nothing can end the comment early.
    """
    reasons = [reason for reason in report.verdict.reasons if _FINGERPRINT.fullmatch(reason)]
    return f"{body.rstrip()}\n<!-- hubaudit:reasons{''.join(f' {reason}' for reason in reasons[:50])} -->\n"


def findings_gone(thread: Thread, report: AuditReport) -> bool:
    """Whether a thread reported findings and a finished audit no longer has any that weigh.

    An inconclusive audit closes nothing: what was not read is not gone.
    """
    return report.verdict.outcome == "pass" and _told_findings(thread)


def told_and_gone(threads: Sequence[Thread], me: str, report: AuditReport) -> Thread | None:
    """Return the newest thread of ours when we closed it because its findings were gone, and they still are.

    Nothing is left to be said then: another thread, to say that nothing was found, would be noise.
    """
    if not threads or report.verdict.outcome != "pass":
        return None
    newest = threads[-1]
    return newest if newest.state == "closed" and newest.closed_by == me and _told_findings(newest) else None


def _told_findings(thread: Thread) -> bool:
    told = _REASONS.search(thread.text)
    return bool(told and told[1])


def differs_only_in_when(old: str, new: str, report: AuditReport) -> str | None:
    """Return the audited commit that the old text names when the texts differ in that and in the date alone.

    Returns:
        The commit; None when the texts differ in anything else, or the old one names no commit.
    """
    name = re.escape(report.subject.name)
    pattern = re.compile(rf"\b{name}@([0-9a-f]{{40}})\b")
    found = set(pattern.findall(old))
    if len(found) != 1 or not report.subject.revision:
        return None
    dated = re.compile(r"(Measured on )[^\n|`]{1,60}?\.(?=\r?\n)")

    def timeless(text: str) -> str:
        return dated.sub(r"\1.", pattern.sub("@", text)).strip()

    return found.pop() if timeless(old) == timeless(new) else None


def ended_by_others(threads: Sequence[Thread], me: str) -> Thread | None:
    """Return the newest thread of ours that somebody else has closed: a lasting no. None when there is none."""
    closed = [thread for thread in threads if thread.state == "closed" and thread.closed_by != me]
    return closed[-1] if closed else None
