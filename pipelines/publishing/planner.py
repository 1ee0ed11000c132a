"""Looks at a repository and decides what publishing a report there would do. Reads, never writes."""

from dataclasses import dataclass, field, replace

from audit.records import AuditReport
from pipelines.publishing.consent import RepoList, card_opts_out, is_own
from pipelines.publishing.errors import OptedOut, PublishRefused
from pipelines.publishing.hub_writer import HubWriter, Thread
from pipelines.publishing.plan import (
    FORMS,
    README,
    Block,
    Form,
    Plan,
    differs_only_in_when,
    ended_by_others,
    findings_gone,
    severe_findings,
    told_and_gone,
    with_reasons,
)
from pipelines.publishing.shown import unified_diff
from reports.card_section import splice
from reports.front_matter import Entry, FrontMatterKept, entry_of, has_entry, undated, with_entry
from reports.letters import SUPERSEDED, closing_comment, discussion_body, discussion_title, private_report
from reports.markdown import card_section, pr_body, pr_title
from scanner.errors import BadReference, CouldNotConclude, FileNotFound, HubAuditError, NothingToCompare
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.refs import RepoSpec, as_repo_id

README_LIMIT_BYTES = 5 << 20
NOT_WEIGHTS = frozenset({README, ".gitattributes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Etiquette:
    """Whom to write to. With an allow-list, only one's own repositories and those on it are written to."""

    allowed: RepoList | None = None
    opted_out: RepoList = field(default_factory=RepoList)
    disclose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardMetadata:
    """Whether the card's metadata gets a line of ours, and the address of the report that it names."""

    wanted: bool = False
    report_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the Hub says about a repository before we publish to it."""

    repo_id: str
    ref: RepoRef
    card: bytes | None
    user: str | None
    own: bool
    read_only: bool
    threads: tuple[Thread, ...]

    @property
    def open(self) -> tuple[Thread, ...]:
        return tuple(thread for thread in self.threads if thread.state == "open")


class Planner:
    """Plans what to publish to one Hub as one user."""

    def __init__(self, hub: Hub, writer: HubWriter, etiquette: Etiquette, metadata: CardMetadata | None = None) -> None:
        """Prepare; no request is made."""
        self._hub = hub
        self._writer = writer
        self._etiquette = etiquette
        self._metadata = metadata or CardMetadata()

    def plan(self, report: AuditReport, *, form: str) -> Plan:
        """Compose the change that publishing would make; reads, never writes.

        Without a token the plan shows a new thread; whether one is open already, only its author can tell.

        Raises:
            NothingToCompare: the report is of a local folder, so there is no repository to publish to.
            RepoUnavailable: the repository cannot be read.
            CardMarkersError: hubaudit's markers in the card are damaged.
            CouldNotConclude: the token is refused, or the card cannot be edited.
        """
        if report.subject.repo_id is None:
            raise NothingToCompare("This report is of a local folder; there is no repository to publish it to.")
        if form not in FORMS:
            raise ValueError(form)
        seen = self._look(report.subject.repo_id, form)
        plan = self._compose(report, seen, form)
        block, why = self._block(report, seen, form)
        if block == "severe":
            plan = replace(plan, shown=private_report(report))
        return replace(plan, block=block, blocked=why, bothers=not seen.own and not self.allows(seen.repo_id))

    def _look(self, name: str, form: str) -> _Seen:
        repo_id = as_repo_id(name)
        if repo_id is None:
            raise BadReference("The report's subject is not the name of a repository; make the report again.")
        ref = self._hub.resolve(RepoSpec(text=repo_id, repo_id=repo_id))
        me = self._writer.account()
        try:
            threads = self._writer.threads(ref.name)
        except PublishRefused:
            # Where discussions are switched off there are no threads, and an owner may still edit the card.
            if form != "section":
                raise
            threads = ()
        return _Seen(
            repo_id=ref.name,
            ref=ref,
            card=self.readme(ref),
            user=me.user if me else None,
            own=me is not None and is_own(ref.name, user=me.user, orgs=me.orgs),
            read_only=me is not None and me.read_only,
            threads=threads,
        )

    def check_opt_out(self, repo_id: str) -> None:
        """Check that neither the opt-out list nor the card says no.

        Raises:
            OptedOut: one of them does.
            RepoUnavailable: the card cannot be read.
        """
        ref = self._hub.resolve(RepoSpec(text=repo_id, repo_id=repo_id))
        said_no = self._opted_out(ref.name, self.readme(ref))
        if said_no is not None:
            raise OptedOut(said_no)

    def _opted_out(self, name: str, card: bytes | None) -> str | None:
        if name in self._etiquette.opted_out:
            return f"{name} is on the opt-out list; nothing is published there."
        if card is not None and card_opts_out(card):
            return f"The card of {name} opts out (`hubaudit: false`); nothing is published there."
        return None

    def allows(self, repo_id: str) -> bool:
        """Whether a repository is on the allow-list."""
        return self._etiquette.allowed is not None and repo_id in self._etiquette.allowed

    def _block(self, report: AuditReport, seen: _Seen, form: str) -> tuple[Block | None, str | None]:
        """Say why nothing may be written, the owner's wish first."""
        name = seen.repo_id
        said_no = self._opted_out(name, seen.card)
        if said_no is not None:
            return "opted_out", said_no
        ended = ended_by_others(seen.threads, seen.user or "")
        if ended is not None:
            return "opted_out", (
                f"Thread #{ended.number} in {name} was closed by {ended.closed_by or 'its owner'}, which is a no; "
                "nothing is published there until they open it again."
            )
        if self._etiquette.allowed is not None and not seen.own and not self.allows(name):
            return "not_allowed", f"{name} is neither yours nor on the allow-list; nothing is published there."
        if severe_findings(report) and not self._etiquette.disclose:
            return "severe", (
                "findings of high severity are not published without --disclose; send the letter above to the owner "
                "in private first."
            )
        if seen.read_only:
            return "read_only", "This token may only read; use one with the role write to publish."
        right_kind = [thread for thread in seen.open if thread.is_pull_request == (form == "pr")]
        if seen.open and not right_kind and form != "section":
            other = seen.open[0]
            right = "pr" if other.is_pull_request else "discussion"
            return "other_thread", (
                f"A {other.kind} of yours is open in {name} (#{other.number}), and there is one thread per repository; "
                f"update it with --as {right}, or close it first."
            )
        return None, None

    def _compose(self, report: AuditReport, seen: _Seen, form: str) -> Plan:
        chosen: Form = form  # type: ignore[assignment]
        title = discussion_title(report) if form == "discussion" else pr_title(report)
        text = (
            discussion_body(report) if form == "discussion" else pr_body(report, metadata=self._takes_line(seen.card))
        )
        body = with_reasons(text, report)
        ours = [thread for thread in seen.open if thread.is_pull_request == (form == "pr")]
        thread = ours[0] if ours and form != "section" else None
        notes = [f"#{extra.number} is also open and yours; close it by hand." for extra in ours[1:] if thread]
        plan = Plan(repo_id=seen.repo_id, form=chosen, step="nothing", shown="", title=title, body=body, thread=thread)
        if thread is not None and thread.conflicts and not thread.only_ours:
            notes.append(
                f"#{thread.number} conflicts with later edits of the card, and others have committed to it; "
                "they have to resolve it, or close it."
            )
        notes += self._stale(report, seen)
        if thread is not None and findings_gone(thread, report):
            plan = replace(plan, step="close", farewell=closing_comment(report))
        elif form != "section" and (gone := told_and_gone(seen.threads, seen.user or "", report)):
            notes.append(f"#{gone.number} was closed when its findings were gone, and they still are.")
        elif form == "discussion":
            plan = self._discussion(plan, report, seen)
        else:
            plan = self._card(plan, report, seen)
        return replace(plan, shown=_shown(plan), notes=(*notes, *plan.notes))

    def _discussion(self, plan: Plan, report: AuditReport, seen: _Seen) -> Plan:
        if plan.thread is None:
            return replace(plan, step="open")
        return plan if self._same(plan.thread.text, plan.body, report, seen) else replace(plan, step="update")

    def _card(self, plan: Plan, report: AuditReport, seen: _Seen) -> Plan:
        """Decide about the card section, on the main branch or on that of our pull request."""
        section = card_section(report).encode()
        thread, head, before = plan.thread, seen.ref.revision or "", seen.card
        if thread is not None and thread.conflicts and thread.only_ours:
            after, kept = self._edited(before, section, report, plan.repo_id)
            return replace(plan, step="replace", head=head, before=before, after=after, farewell=SUPERSEDED, notes=kept)
        if thread is not None:
            head = self._writer.head(plan.repo_id, thread.branch)
            before = self.readme(RepoRef(repo_id=plan.repo_id, revision=head))
        after, kept = self._edited(before, section, report, plan.repo_id)
        plan = replace(plan, head=head, before=before, after=after, notes=kept)
        texts = (undated(before or b"").decode(), undated(after).decode())
        if self._same(*texts, report, seen) and (thread is None or self._same(thread.text, plan.body, report, seen)):
            return replace(plan, after=before)
        if plan.form == "section":
            return replace(plan, step="commit")
        return replace(plan, step="open" if thread is None else "update")

    def _takes_line(self, card: bytes | None) -> bool:
        """Whether publishing changes the card's metadata, as the text of the pull request then has to say."""
        try:
            with_entry(card or b"", Entry(verdict="pass", date=""))
        except FrontMatterKept:
            return False
        return self._metadata.wanted or has_entry(card or b"")

    def _edited(
        self, before: bytes | None, section: bytes, report: AuditReport, repo_id: str
    ) -> tuple[bytes, tuple[str, ...]]:
        """Return the card with our section, and our line in its metadata where it is wanted or there already."""
        after = _spliced(before, section, repo_id)
        if not self._metadata.wanted and not has_entry(after):
            return after, ()
        try:
            return with_entry(after, entry_of(report, url=self._metadata.report_url)), ()
        except FrontMatterKept as error:
            return after, (str(error),)

    def _same(self, old: str, new: str, report: AuditReport, seen: _Seen) -> bool:
        """Whether a new text would tell a reader nothing new: at most another date, and a commit to the card alone."""
        if old.strip() == new.strip():
            return True
        commit = differs_only_in_when(old, new, report)
        return commit is not None and self._same_weights(seen.repo_id, commit, report.subject.revision)

    def _stale(self, report: AuditReport, seen: _Seen) -> list[str]:
        if self._same_weights(seen.repo_id, report.subject.revision, seen.ref.revision):
            return []
        return [f"{seen.repo_id} has changed since this report was made; scan again to describe what is there now."]

    def _same_weights(self, repo_id: str, one: str | None, other: str | None) -> bool:
        """Whether two commits have the same files but for the card. A commit that cannot be read is another one."""
        if one is None or other is None or one == other:
            return one == other
        try:
            files = [
                {entry.path: (entry.size_bytes, entry.blob_id, entry.sha256) for entry in self._hub.files(ref)}
                for ref in (RepoRef(repo_id=repo_id, revision=one), RepoRef(repo_id=repo_id, revision=other))
            ]
        except HubAuditError:
            return False
        names = (files[0].keys() | files[1].keys()) - NOT_WEIGHTS
        return all(files[0].get(name) == files[1].get(name) for name in names)

    def readme(self, ref: RepoRef) -> bytes | None:
        """Return the card at a commit, None when there is none."""
        try:
            return self._hub.read_bytes(ref, README, limit_bytes=README_LIMIT_BYTES)
        except FileNotFound:
            return None


def _spliced(before: bytes | None, section: bytes, repo_id: str) -> bytes:
    """Return the card with our section.

    Raises:
        CardMarkersError: as ``splice``.
        CouldNotConclude: the card is not UTF-8, which the Hub's client refuses later and less clearly.
    """
    try:
        (before or b"").decode()
    except UnicodeDecodeError as error:
        raise CouldNotConclude(
            f"README.md of {repo_id} is not UTF-8 (byte {error.start}), so its card cannot be edited; "
            "publish with --as discussion, or ask the owner to save it as UTF-8."
        ) from None
    return splice(before or b"", section)


def _shown(plan: Plan) -> str:
    """Return the change as a person reads it: the diff of the card, then the text of the thread."""
    parts = []
    if plan.after is not None:
        parts.append(unified_diff(plan.before, plan.after, README) or f"{README}: no change\n")
    where = f"#{plan.thread.number}" if plan.thread else ""
    match plan.step:
        case "close":
            parts = [f"--- closing {where} ---\n{plan.farewell}\n"]
        case "replace":
            parts.append(f"--- closing {where} ---\n{plan.farewell}\n")
            parts.append(f"--- new pull request ---\n{plan.title}\n\n{plan.body}\n")
        case "open":
            parts.append(
                f"--- new {'pull request' if plan.form == 'pr' else plan.form} ---\n{plan.title}\n\n{plan.body}\n"
            )
        case "update":
            parts.append(f"--- {where}, updated in place ---\n{plan.title}\n\n{plan.body}\n")
        case "nothing" | "commit":
            pass
    return "\n".join(parts)
