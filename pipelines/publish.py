"""The only writer to the Hub: one open thread per repository, shown first, written only when told to.

``Publisher.plan`` reads and composes; ``Publisher.publish`` writes exactly what the plan shows. The README's bytes
outside our markers never change. A commit whose reply was lost is looked up, never sent twice: a second
``/commit`` would open a second pull request.
"""

import difflib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
from huggingface_hub import CommitOperationAdd, DiscussionComment, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalTokenNotFoundError

from audit.records import SEVERITIES, AuditReport
from pipelines.settings import tool_version
from reports.card_section import splice
from reports.markdown import PR_MARKER, card_section, pr_body, pr_title
from scanner.errors import CouldNotConclude, HubUnreachable, NothingToCompare, RepoGated, RepoNotFound
from scanner.hub import Hub
from scanner.records import RepoRef
from scanner.refs import RepoSpec

Form = Literal["section", "pr", "discussion"]
README = "README.md"
README_LIMIT_BYTES = 5 << 20
SEVERE = SEVERITIES.index("high")
OUR_THREADS_READ = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """An open pull request or discussion of ours: its number, and its first comment's id and text."""

    number: int
    comment_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What publishing would change, down to the byte.

    ``shown`` is what a person is asked to look at. ``blocked`` says why nothing may be written, or is None.
    ``head`` is the commit that ``after`` was made from; ``thread`` is our open thread, to be updated in place.
    """

    repo_id: str
    form: Form
    shown: str
    blocked: str | None
    title: str
    body: str
    before: bytes | None
    after: bytes | None
    head: str
    thread: Thread | None

    @property
    def changes(self) -> bool:
        """True when publishing would write something."""
        if self.form != "discussion" and self.before != self.after:
            return True
        if self.form == "section":
            return False
        return self.thread is None or self.thread.text.strip() != self.body.strip()


class Publisher:
    """Publishes audit reports to one Hub as one user."""

    def __init__(self, *, endpoint: str, token: str | None, timeout_seconds: float = 30.0) -> None:
        self._hub = Hub(endpoint=endpoint, token=token, timeout_seconds=timeout_seconds)
        self._api = HfApi(endpoint=endpoint, token=token, library_name="hubaudit", library_version=tool_version())

    def plan(self, report: AuditReport, *, form: str, disclose: bool = False) -> Plan:
        """Compose the change that publishing would make; reads, never writes.

        Raises:
            NothingToCompare: the report is of a local folder, so there is no repository to publish to.
            RepoUnavailable: the repository cannot be read.
            CardMarkersError: hubaudit's markers in the card are damaged.
        """
        repo_id = report.subject.repo_id
        if repo_id is None:
            raise NothingToCompare("This report is of a local folder; there is no repository to publish it to.")
        if form not in ("section", "pr", "discussion"):
            raise ValueError(form)
        chosen: Form = form  # type: ignore[assignment]
        severe = [f for f in report.findings if SEVERITIES.index(f.severity) >= SEVERE]
        blocked = None
        if severe and not disclose:
            blocked = (
                "findings of high severity are not published without --disclose; send the text above to the "
                "owner in private first."
            )
        thread = None if chosen == "section" else self._open_thread(repo_id, pull_request=chosen == "pr")
        body, title = pr_body(report), pr_title(report)
        before = after = None
        head = self._hub.resolve(RepoSpec(text=repo_id, repo_id=repo_id)).revision or ""
        if chosen != "discussion":
            branch = f"refs/pr/{thread.number}" if thread else head
            if thread:
                head = self._head_of(repo_id, branch)
            before = self._readme(repo_id, head)
            _check_utf8(before, repo_id)
            after = splice(before or b"", card_section(report).encode())
        return Plan(
            repo_id=repo_id,
            form=chosen,
            shown=_shown(before, after, title, body, thread, chosen),
            blocked=blocked,
            title=title,
            body=body,
            before=before,
            after=after,
            head=head,
            thread=thread,
        )

    def publish(self, plan: Plan) -> str:
        """Write what the plan shows, and return one line with the address of the result.

        Raises:
            CouldNotConclude: the Hub refused; the sentence says what to do.
        """
        if plan.blocked:
            raise CouldNotConclude(plan.blocked)
        with _hub_errors(plan.repo_id):
            match plan.form:
                case "section":
                    return self._commit(plan, revision=None)
                case "pr":
                    return self._pull_request(plan)
                case "discussion":
                    return self._discussion(plan)

    def _pull_request(self, plan: Plan) -> str:
        if plan.thread is None:
            try:
                info = self._create_commit(plan, create_pr=True)
            except HfHubHTTPError:
                raise
            except httpx2.HTTPError as error:
                found = self._open_thread(plan.repo_id, pull_request=True)
                if found is None:
                    raise HubUnreachable(
                        f"The Hub did not answer the commit to {plan.repo_id} and no pull request was opened; "
                        "run the same command again."
                    ) from error
                return f"opened {self._address(plan.repo_id, found.number)}"
            return f"opened {info.pr_url}" if info.pr_url else "already up to date"
        if plan.before != plan.after:
            self._create_commit(plan, revision=f"refs/pr/{plan.thread.number}")
        self._refresh_comment(plan, plan.thread)
        return f"updated {self._address(plan.repo_id, plan.thread.number)}"

    def _discussion(self, plan: Plan) -> str:
        if plan.thread is None:
            opened = self._api.create_discussion(plan.repo_id, title=plan.title, description=plan.body)
            return f"opened {opened.url}"
        self._refresh_comment(plan, plan.thread)
        return f"updated {self._address(plan.repo_id, plan.thread.number)}"

    def _commit(self, plan: Plan, *, revision: str | None) -> str:
        info = self._create_commit(plan, revision=revision)
        return f"committed {info.commit_url}"

    def _create_commit(self, plan: Plan, *, revision: str | None = None, create_pr: bool = False) -> Any:
        assert plan.after is not None
        with warnings.catch_warnings():
            # The client warns about every card without metadata, which is none of our business.
            warnings.simplefilter("ignore", UserWarning)
            return self._api.create_commit(
                plan.repo_id,
                operations=[CommitOperationAdd(path_in_repo=README, path_or_fileobj=plan.after)],
                commit_message=plan.title,
                commit_description=plan.body,
                revision=revision,
                create_pr=create_pr,
                parent_commit=plan.head,
            )

    def _refresh_comment(self, plan: Plan, thread: Thread) -> None:
        if thread.text.strip() != plan.body.strip():
            self._api.edit_discussion_comment(plan.repo_id, thread.number, thread.comment_id, new_content=plan.body)

    def _open_thread(self, repo_id: str, *, pull_request: bool) -> Thread | None:
        """Find our own open thread by author and hidden marker; None when there is none."""
        with _hub_errors(repo_id):
            try:
                me = self._api.whoami()["name"]
            except (HfHubHTTPError, LocalTokenNotFoundError) as error:
                raise CouldNotConclude(
                    "Publishing needs to know who you are: set HF_TOKEN to a token that may write, or log in "
                    "with `hf auth login`."
                ) from error
            for thread in self._threads(repo_id, me, pull_request=pull_request):
                return thread
        return None

    def _threads(self, repo_id: str, author: str, *, pull_request: bool) -> Iterator[Thread]:
        listed = self._api.get_repo_discussions(
            repo_id,
            author=author,
            discussion_type="pull_request" if pull_request else "discussion",
            discussion_status="open",
        )
        for count, found in enumerate(listed):
            if count >= OUR_THREADS_READ:
                return
            details = self._api.get_discussion_details(repo_id, found.num)
            for event in details.events:
                if isinstance(event, DiscussionComment) and event.author == author and PR_MARKER in event.content:
                    yield Thread(number=found.num, comment_id=event.id, text=event.content)
                    break

    def _head_of(self, repo_id: str, branch: str) -> str:
        with _hub_errors(repo_id):
            return str(self._api.model_info(repo_id, revision=branch).sha)

    def _readme(self, repo_id: str, revision: str) -> bytes | None:
        from scanner.errors import FileNotFound

        try:
            return self._hub.read_bytes(
                RepoRef(repo_id=repo_id, revision=revision), README, limit_bytes=README_LIMIT_BYTES
            )
        except FileNotFound:
            return None

    def _address(self, repo_id: str, number: int) -> str:
        return f"{self._api.endpoint}/{repo_id}/discussions/{number}"


class _hub_errors:  # noqa: N801
    """Turn the client's errors into ours, each with what to do next."""

    def __init__(self, repo_id: str) -> None:
        self._repo_id = repo_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, HfHubHTTPError):
            return
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        name = self._repo_id
        if isinstance(error, GatedRepoError):
            raise RepoGated(f"{name} is gated; accept its terms on the Hub first.") from error
        if isinstance(error, RepositoryNotFoundError | EntryNotFoundError):
            raise RepoNotFound(f"{name} was not found, or the token may not see it.") from error
        status = getattr(error.response, "status_code", None)
        said = error.server_message or "no reason given"
        match status:
            case 401:
                advice = "set HF_TOKEN to a valid token"
            case 403:
                advice = (
                    "the token may not write here, or the owner has switched pull requests off; "
                    "use a token with write access, or send the report to the owner in private"
                )
            case 409 | 412:
                advice = "the repository changed meanwhile; run the same command again"
            case 429:
                advice = "the Hub asks to slow down; try again in a few minutes"
            case _:
                advice = "try again later"
        raise CouldNotConclude(f"The Hub refused to write to {name} ({status}: {said}): {advice}.") from error


def _check_utf8(readme: bytes | None, repo_id: str) -> None:
    """Refuse a card that the Hub's client would refuse later, and less clearly."""
    try:
        (readme or b"").decode()
    except UnicodeDecodeError as error:
        raise CouldNotConclude(
            f"README.md of {repo_id} is not UTF-8 (byte {error.start}), so its card cannot be edited; "
            "publish with --as discussion, or ask the owner to save it as UTF-8."
        ) from None


def _shown(before: bytes | None, after: bytes | None, title: str, body: str, thread: Thread | None, form: Form) -> str:
    """Return the change as a person reads it: the diff of the card, then the text of the thread."""
    parts = []
    if after is not None:
        old = (before or b"").decode("utf-8", "replace").splitlines(keepends=True)
        new = after.decode("utf-8", "replace").splitlines(keepends=True)
        diff = "".join(
            line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
            for line in difflib.unified_diff(
                old, new, f"a/{README}" if before is not None else "/dev/null", f"b/{README}"
            )
        )
        parts.append(diff or f"{README}: no change\n")
    if form != "section":
        where = (
            f"thread #{thread.number} (updated in place)"
            if thread
            else f"new {'pull request' if form == 'pr' else form}"
        )
        parts.append(f"--- {where} ---\n{title}\n\n{body}\n")
    return "\n".join(parts)
