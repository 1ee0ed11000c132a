"""The only calls that write to the Hub, and the lookups that writing needs.

Reads have the time limits and retries of ``scanner.hub``; a write is sent once. Whatever goes wrong is raised as one
of three things: refused (nothing happened), changed (look again), or lost (it may have happened).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import httpx2
from huggingface_hub import CommitOperationAdd, DiscussionWithDetails
from huggingface_hub.community import DiscussionComment, DiscussionCommit, DiscussionStatusChange
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from pipelines.publishing.errors import PublishRefused, ReplyLost, RepositoryChanged
from reports.safe_text import clean_line
from scanner.errors import BadReference, CouldNotConclude, HubUnreachable, RepoGated, RepoNotFound
from scanner.hub import Hub
from scanner.hub_transport import problem_of
from scanner.patience import asked_wait

MAX_THREADS = 100
"""Of ours in one repository. There is one open at a time, so this many mean that something is wrong."""
_WRITING_ROLES = frozenset({"admin", "write"})
_UNSURE = frozenset({408, 500, 502, 503, 504})
"""Answers of a gateway that may have given up on a request which the Hub then carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who we are on the Hub: the user, the organisations they may write to, and whether the token may only read.

    ``id`` is the Hub's own for the user, None when it does not say.
    """

    user: str
    id: str | None
    orgs: frozenset[str]
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A discussion or pull request of ours.

    ``comment_id`` and ``text`` are those of the comment with our marker (None and empty when it is gone);
    ``closed_by`` names who closed it last, when it is closed; ``conflicts`` says that it can no longer be merged;
    ``only_ours`` that nobody else has committed to it.
    """

    number: int
    is_pull_request: bool
    state: Literal["open", "closed", "merged"]
    comment_id: str | None
    text: str
    closed_by: str | None
    conflicts: bool
    only_ours: bool

    @property
    def branch(self) -> str:
        """The ref of its commits; pull requests only."""
        return f"refs/pr/{self.number}"

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "pull request" if self.is_pull_request else "discussion"


class HubWriter:
    """Writes to one Hub as one user, and finds what that user wrote before."""

    def __init__(self, hub: Hub, *, marker: str, titles: tuple[str, ...]) -> None:
        """Prepare; no request is made.

        Args:
            hub: the reader whose endpoint, token and limits are used.
            marker: hidden text in the comments of our threads.
            titles: titles of our threads, by which one is known whose comment was hidden or edited.
        """
        self._hub = hub
        self._api = hub.api
        self._marker = marker
        self._titles = titles
        self._account: Account | None = None

    @property
    def endpoint(self) -> str:
        """The address of the Hub."""
        return self._hub.endpoint

    def account(self) -> Account | None:
        """Return who the token belongs to, asked once; None without a token.

        Raises:
            CouldNotConclude: the Hub does not know the token.
        """
        if self._account is None and self._api.token:
            try:
                with self._asking("the account of the token"):
                    me = self._api.whoami()
            except (PublishRefused, RepoNotFound) as error:
                raise CouldNotConclude(
                    "The Hub refused the token; set HF_TOKEN to a valid one, or log in with `hf auth login`."
                ) from error
            orgs = {str(org["name"]) for org in me.get("orgs") or () if org.get("roleInOrg") in _WRITING_ROLES}
            role = ((me.get("auth") or {}).get("accessToken") or {}).get("role")
            identity = me.get("id")
            self._account = Account(
                user=str(me["name"]),
                id=identity if isinstance(identity, str) else None,
                orgs=frozenset(orgs),
                read_only=role == "read",
            )
        return self._account

    def threads(self, repo_id: str) -> tuple[Thread, ...]:
        """Return our threads in a repository, open and ended, oldest first; none without a token.

        Raises:
            PublishRefused: 403, when the owner has switched discussions off.
            CouldNotConclude: there are more than ``MAX_THREADS``.
        """
        me = self.account()
        if me is None:
            return ()
        with self._asking(repo_id):
            listed = list(islice(self._api.get_repo_discussions(repo_id, author=me.user), MAX_THREADS + 1))
            if len(listed) > MAX_THREADS:
                raise CouldNotConclude(
                    f"{me.user} has more than {MAX_THREADS} threads in {repo_id}; nothing is added to them."
                )
            details = [self._api.get_discussion_details(repo_id, one.num) for one in listed if one.author == me.user]
        found = (thread for one in details if (thread := self._as_thread(one, me.user)) is not None)
        return tuple(sorted(found, key=lambda thread: thread.number))

    def thread(self, repo_id: str, number: int) -> Thread | None:
        """Return one of our threads as it is now, or None when it is no longer recognised as ours."""
        me = self.account()
        with self._asking(repo_id):
            details = self._api.get_discussion_details(repo_id, number)
        return self._as_thread(details, me.user if me else "")

    def head(self, repo_id: str, revision: str) -> str:
        """Return the commit that a branch points to."""
        with self._asking(repo_id):
            return str(self._api.model_info(repo_id, revision=revision).sha)

    def commit(
        self, repo_id: str, path: str, content: bytes, *, title: str, body: str, parent: str, branch: str | None
    ) -> str:
        """Commit one file on top of ``parent`` and return the commit's address.

        Raises:
            RepositoryChanged: the branch has moved on from ``parent``.
            PublishRefused, ReplyLost: as the module says.
        """
        return str(self._commit(repo_id, path, content, title, body, parent, revision=branch).commit_url)

    def open_pull_request(
        self, repo_id: str, path: str, content: bytes, *, title: str, body: str, parent: str
    ) -> str | None:
        """Open a pull request that changes one file; return its address, None when the file is like that already."""
        url = self._commit(repo_id, path, content, title, body, parent, create_pr=True).pr_url
        return str(url) if url else None

    def open_discussion(self, repo_id: str, *, title: str, body: str) -> str:
        """Open a discussion and return its address."""
        with self._writing(repo_id):
            return str(self._api.create_discussion(repo_id, title=title, description=body).url)

    def edit_comment(self, repo_id: str, thread: Thread, body: str) -> None:
        """Replace the text of our comment."""
        assert thread.comment_id is not None
        with self._writing(repo_id):
            self._api.edit_discussion_comment(repo_id, thread.number, thread.comment_id, new_content=body)

    def close(self, repo_id: str, thread: Thread, comment: str) -> None:
        """Close a thread with a last comment."""
        with self._writing(repo_id):
            self._api.change_discussion_status(repo_id, thread.number, "closed", comment=comment)

    def answer(self, repo_id: str, number: int, text: str, *, mark: str) -> bool:
        """Comment on a thread, or edit our comment there that holds the mark; False when the thread is closed.

        Raises:
            PublishRefused, ReplyLost: as the module says.
        """
        me = self.account()
        with self._asking(repo_id):
            details = self._api.get_discussion_details(repo_id, number)
        if details.status not in {"open", "draft"}:
            return False
        ours = (
            event
            for event in details.events
            if isinstance(event, DiscussionComment) and me is not None and event.author == me.user
        )
        earlier = next((event for event in ours if mark in event.content), None)
        with self._writing(repo_id):
            if earlier is None:
                self._api.comment_discussion(repo_id, number, text)
            elif earlier.content.strip() != text.strip():
                self._api.edit_discussion_comment(repo_id, number, earlier.id, new_content=text)
        return True

    def address(self, repo_id: str, number: int) -> str:
        """Return the page of a thread."""
        return f"{self.endpoint}/{repo_id}/discussions/{number}"

    def _commit(
        self,
        repo_id: str,
        path: str,
        content: bytes,
        title: str,
        body: str,
        parent: str,
        *,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> Any:
        with self._writing(repo_id), warnings.catch_warnings():
            # The client warns about every card without metadata, which is none of our business.
            warnings.simplefilter("ignore", UserWarning)
            return self._api.create_commit(
                repo_id,
                operations=[CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)],
                commit_message=title,
                commit_description=body,
                revision=revision,
                create_pr=create_pr,
                parent_commit=parent,
            )

    def _as_thread(self, details: DiscussionWithDetails, me: str) -> Thread | None:
        """Return a thread when it is ours: by our user, with our marker in a comment or under our title."""
        comments = [event for event in details.events if isinstance(event, DiscussionComment) and event.author == me]
        marked = next((event for event in comments if self._marker in event.content and not event.hidden), None)
        if details.author != me or (marked is None and details.title not in self._titles):
            return None
        changes = [event for event in details.events if isinstance(event, DiscussionStatusChange)]
        closings = [event for event in changes if event.new_status != "open"]
        closed = details.status == "closed"
        return Thread(
            number=details.num,
            is_pull_request=details.is_pull_request,
            state="closed" if closed else "merged" if details.status == "merged" else "open",
            comment_id=marked.id if marked else None,
            text=marked.content if marked else "",
            # Nobody on record means that we cannot claim to have closed it ourselves.
            closed_by=(closings[-1].author if closings else "") if closed else None,
            conflicts=bool(details.conflicting_files),
            only_ours=all(event.author == me for event in details.events if isinstance(event, DiscussionCommit)),
        )

    @contextmanager
    def _asking(self, repo_id: str) -> Iterator[None]:
        """Send reads under the reader's limits, and word their failures."""
        with self._hub.reading(), self._worded(repo_id):
            yield

    @contextmanager
    def _writing(self, repo_id: str) -> Iterator[None]:
        """Send a write once, under the client's own generous time limit, and word its failures."""
        with self._worded(repo_id):
            yield

    @contextmanager
    def _worded(self, repo_id: str) -> Iterator[None]:
        try:
            yield
        except HfHubHTTPError as error:
            raise _refusal(error, repo_id) from error
        except HFValidationError as error:
            raise BadReference(f"{clean_line(repo_id)} cannot be a repository; the report is not usable.") from error
        except httpx2.HTTPError as error:
            raise ReplyLost(f"No usable answer from the Hub about {repo_id}: {problem_of(error)}.") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise HubUnreachable(
                f"{self.endpoint} does not answer like a Hub when asked about {repo_id}; check HF_ENDPOINT."
            ) from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> CouldNotConclude:
    """Return (not raise) what an error answer means for somebody who wants to publish."""
    status = error.response.status_code
    said = clean_line(" ".join((error.server_message or "no reason given").split()), limit=300)
    if isinstance(error, GatedRepoError):
        return RepoGated(f"{repo_id} is gated; accept its terms on the Hub first.")
    if isinstance(error, RepositoryNotFoundError):
        return RepoNotFound(f"{repo_id} was not found, or the token may not see it; check both.")
    if status in _UNSURE:
        return ReplyLost(f"The Hub answered {status} about {repo_id} ({said}).")
    if status in {409, 412}:
        return RepositoryChanged(
            f"{repo_id} changed while this was prepared ({status}: {said}); nothing was overwritten, "
            "run the same command again."
        )
    match status:
        case 401:
            advice = "set HF_TOKEN to a valid token"
        case 403:
            advice = (
                "use a token that may write, or --as pr where the repository is somebody else's; where the owner has "
                "switched pull requests off, send the report to them in private"
            )
        case 429:
            wait = asked_wait(status, error.response.headers)
            when = f"in {wait:.0f} s" if wait is not None else "in a few minutes"
            advice = f"it asks to slow down, so run the same command again {when}"
        case _:
            advice = "look at the repository's page, then try again"
    return PublishRefused(f"The Hub refused ({status}: {said}) for {repo_id}: {advice}.")
