"""Publishes a report to the Hub: one open thread per repository, shown first, written only when told to.

``Publisher.plan`` reads and composes; ``Publisher.publish`` writes exactly what the plan shows. The README's bytes
outside our markers never change. A request whose reply was lost is looked up, never sent twice: a second ``/commit``
would open a second pull request.
"""

from collections.abc import Callable, Iterable

from audit.records import AuditReport
from pipelines.publishing.consent import is_own
from pipelines.publishing.diary import Diary
from pipelines.publishing.errors import PublishRefused, ReplyLost, RepositoryChanged
from pipelines.publishing.hub_writer import Account, HubWriter, Thread
from pipelines.publishing.plan import README, Plan, severe_findings
from pipelines.publishing.planner import CardMetadata, Etiquette, Planner
from reports.letters import answer, answer_mark
from reports.markdown import PR_MARKER
from scanner.errors import CouldNotConclude
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.refs import RepoSpec

TITLES = (
    "Add weight audit to the model card (hubaudit)",
    "Weight audit of this model (hubaudit)",
    "Add card audit to the model card (hubaudit)",
    "Card audit of this model (hubaudit)",
)
"""What our threads are called, for the case that their hidden marker was removed."""


class Publisher:
    """Publishes audit reports to one Hub as one user."""

    def __init__(
        self,
        hub: Hub,
        *,
        diary: Diary,
        etiquette: Etiquette | None = None,
        metadata: CardMetadata | None = None,
    ) -> None:
        """Prepare; no request is made.

        Args:
            hub: the reader whose endpoint and token are used.
            diary: counts the repositories of others.
            etiquette: whom to write to; anyone who has not said no when None.
            metadata: whether the card's metadata gets a line; when None, only one that is there is kept up to date.
        """
        self._hub = hub
        self._diary = diary
        self._writer = HubWriter(hub, marker=PR_MARKER, titles=TITLES)
        self._planner = Planner(hub, self._writer, etiquette or Etiquette(), metadata)

    def plan(self, report: AuditReport, *, form: str) -> Plan:
        """Compose the change that publishing would make; reads, never writes. As ``Planner.plan``."""
        return self._planner.plan(report, form=form)

    def publish(self, plan: Plan) -> str:
        """Write what the plan shows, and return one line with the address of the result.

        Raises:
            RepositoryChanged: the repository is no longer as it was when the plan was made; make another.
            DailyCapReached: enough repositories of others were written to today.
            CouldNotConclude: the Hub refused or did not answer; the sentence says what was done and what to do.
        """
        if plan.blocked:
            raise CouldNotConclude(plan.blocked)
        if self._writer.account() is None:
            raise CouldNotConclude(
                "Publishing needs to know who you are: set HF_TOKEN to a token that may write, or log in with "
                "`hf auth login`."
            )
        with self._diary.alone():
            if not plan.bothers:
                return self._carry_out(plan)
            self._diary.reserve(self._writer.endpoint, plan.repo_id)
            try:
                return self._carry_out(plan)
            except PublishRefused:
                self._diary.release(self._writer.endpoint, plan.repo_id)
                raise

    def publish_report(
        self, report: AuditReport, *, form: str, show: Callable[[Plan], None] | None = None, plans: int = 3
    ) -> tuple[Plan, str | None]:
        """Plan and publish one report, and plan again when the repository changed between looking and writing.

        Args:
            report: the report.
            form: ``section``, ``pr`` or ``discussion``.
            show: is given each plan before it is carried out, for a person or a log.
            plans: how often to plan at most.

        Returns:
            The last plan, and what was done; None when the plan was blocked or there was nothing to change.

        Raises:
            RepositoryChanged: the repository did not hold still.
            CouldNotConclude: as ``plan`` and ``publish``.
        """
        while True:
            plans -= 1
            plan = self.plan(report, form=form)
            if show is not None:
                show(plan)
            if plan.blocked or not plan.changes:
                return plan, None
            try:
                return plan, self.publish(plan)
            except RepositoryChanged:
                if plans <= 0:
                    raise

    def account(self) -> Account | None:
        """Return who we are on the Hub; None without a token."""
        return self._writer.account()

    def answer(self, report: AuditReport, *, repo_id: str, number: int, key: str) -> str:
        """Reply to a comment that asked for an audit, in its thread; an earlier reply to it is edited.

        Severe findings are not told there. An owner who opted out is not answered either.

        Raises:
            CouldNotConclude: opted out, or the Hub refused or did not answer.
        """
        self._planner.check_opt_out(repo_id)
        severe = severe_findings(report)
        text = answer(report, severe=severe, key=key)
        answered = self._writer.answer(repo_id, number, text, mark=answer_mark(key))
        address = self._writer.address(repo_id, number)
        return f"answered in {address}" if answered else f"{address} was closed meanwhile, so nothing was said there"

    def in_order(self, reports: Iterable[AuditReport]) -> list[AuditReport]:
        """Return reports in the order in which to publish them: our own repositories, those allowed, the others."""
        me = self._writer.account()

        def rank(report: AuditReport) -> int:
            name = report.subject.repo_id or ""
            if me and is_own(name, user=me.user, orgs=me.orgs):
                return 0
            return 1 if self._planner.allows(name) else 2

        return sorted(reports, key=rank)

    def _carry_out(self, plan: Plan) -> str:
        match plan.step:
            case "nothing":
                return "already up to date"
            case "commit":
                return self._commit(plan)
            case "open":
                return self._open(plan)
            case "update":
                return self._update(plan)
            case "close":
                return self._close(plan)
            case "replace":
                self._close(plan)
                return self._open(plan)

    def _commit(self, plan: Plan) -> str:
        assert plan.after is not None
        try:
            url = self._writer.commit(
                plan.repo_id, README, plan.after, title=plan.title, body="", parent=plan.head, branch=None
            )
        except ReplyLost as error:
            now = self._hub.resolve(RepoSpec(text=plan.repo_id, repo_id=plan.repo_id))
            if self._planner.readme(now) != plan.after:
                raise ReplyLost(f"{error} The card is unchanged so far; run the same command again.") from error
            return f"committed to {self._writer.endpoint}/{plan.repo_id}"
        return f"committed {url}"

    def _open(self, plan: Plan) -> str:
        before = {thread.number for thread in self._open_threads(plan.repo_id)}
        if before:
            raise RepositoryChanged(
                f"A thread of yours was opened in {plan.repo_id} meanwhile; run the same command again."
            )
        try:
            if plan.form == "discussion":
                url: str | None = self._writer.open_discussion(plan.repo_id, title=plan.title, body=plan.body)
            else:
                assert plan.after is not None
                url = self._writer.open_pull_request(
                    plan.repo_id, README, plan.after, title=plan.title, body=plan.body, parent=plan.head
                )
        except CouldNotConclude as error:
            # Also after a refusal: the client asks again for what it has just created, and that may be refused.
            opened = self._open_threads(plan.repo_id)
            if not opened:
                raise type(error)(
                    f"{error} No thread was opened so far; running the same command again is safe."
                ) from error
            url = self._writer.address(plan.repo_id, opened[0].number)
        return f"opened {url}" if url else "already up to date"

    def _open_threads(self, repo_id: str) -> list[Thread]:
        return [thread for thread in self._writer.threads(repo_id) if thread.state == "open"]

    def _update(self, plan: Plan) -> str:
        thread = self._still_open(plan)
        address = self._writer.address(plan.repo_id, thread.number)
        done = ""
        if plan.form == "pr" and plan.before != plan.after:
            self._update_card(plan, thread)
            done = f" The card section in {address} is up to date already."
        if thread.comment_id is not None and thread.text.strip() != plan.body.strip():
            try:
                self._writer.edit_comment(plan.repo_id, thread, plan.body)
            except ReplyLost as error:
                now = self._writer.thread(plan.repo_id, thread.number)
                if now is None or now.text.strip() != plan.body.strip():
                    raise ReplyLost(f"{error}{done} Its text is not; run the same command again.") from error
            except PublishRefused as error:
                if not done:
                    raise
                # Not a refusal as a whole: half of it is done.
                raise CouldNotConclude(f"{error}{done} Its text is not yet.") from error
        return f"updated {address}"

    def _update_card(self, plan: Plan, thread: Thread) -> None:
        assert plan.after is not None
        try:
            self._writer.commit(
                plan.repo_id, README, plan.after, title=plan.title, body="", parent=plan.head, branch=thread.branch
            )
        except ReplyLost as error:
            head = self._writer.head(plan.repo_id, thread.branch)
            if self._planner.readme(RepoRef(repo_id=plan.repo_id, revision=head)) != plan.after:
                raise ReplyLost(f"{error} Nothing has changed so far; run the same command again.") from error

    def _close(self, plan: Plan) -> str:
        thread = self._still_open(plan)
        address = self._writer.address(plan.repo_id, thread.number)
        try:
            self._writer.close(plan.repo_id, thread, plan.farewell)
        except ReplyLost as error:
            now = self._writer.thread(plan.repo_id, thread.number)
            if now is None or now.state == "open":
                raise ReplyLost(f"{error} {address} is still open; run the same command again.") from error
        return f"closed {address}"

    def _still_open(self, plan: Plan) -> Thread:
        """Return our thread as it is now.

        Raises:
            RepositoryChanged: somebody has closed or merged it since the plan was made.
        """
        assert plan.thread is not None
        now = self._writer.thread(plan.repo_id, plan.thread.number)
        if now is None or now.state != "open":
            raise RepositoryChanged(
                f"{self._writer.address(plan.repo_id, plan.thread.number)} was closed or merged meanwhile; "
                "run the same command again."
            )
        return now
