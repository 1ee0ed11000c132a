"""Discussions and pull requests: what is said, and in which state they are."""

import html
from dataclasses import dataclass, field
from typing import Any, Literal

from localhub.stamps import object_id

Standing = Literal["draft", "open", "closed", "merged"]


@dataclass(slots=True, kw_only=True)
class Event:
    """One line of a discussion's history; ``details`` is its ``data`` on the wire."""

    id: str
    kind: Literal["comment", "commit", "status-change", "title-change"]
    author: str
    date: str
    details: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Discussion:
    """A discussion, or a pull request when ``base_ref`` says where it wants to go."""

    num: int
    repo_id: str
    title: str
    author: str
    date: str
    status: Standing
    base_ref: str | None = None
    merge_base: str | None = None
    merge_commit: str | None = None
    conflicts: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def is_pull_request(self) -> bool:
        """True for a pull request."""
        return self.base_ref is not None

    @property
    def head_ref(self) -> str:
        """The ref that holds the commits of the pull request."""
        return f"refs/pr/{self.num}"

    @property
    def comments(self) -> tuple[str, ...]:
        """The text of every comment as it reads now, the description first."""
        return tuple(event.details["latest"]["raw"] for event in self.events if event.kind == "comment")

    def record(
        self,
        kind: Literal["comment", "commit", "status-change", "title-change"],
        author: str,
        date: str,
        **details: Any,
    ) -> Event:
        """Append an event and return it."""
        identity = object_id(f"{self.repo_id}#{self.num}.{len(self.events)}")
        event = Event(id=identity, kind=kind, author=author, date=date, details=details)
        self.events.append(event)
        return event

    def say(self, author: str, date: str, text: str) -> Event:
        """Append a comment."""
        latest = comment_version(author, date, text)
        return self.record(
            "comment",
            author,
            date,
            edited=False,
            hidden=False,
            numEdits=0,
            latest=latest,
            history=[],
            reactions=[],
        )

    def event(self, identity: str) -> Event | None:
        """Return the event with this id."""
        return next((event for event in self.events if event.id == identity), None)


def comment_version(author: str, date: str, text: str) -> dict[str, Any]:
    """Return one version of a comment, in the Hub's form."""
    shown = f"<p>{html.escape(text)}</p>"
    return {"raw": text, "html": shown, "updatedAt": date, "author": author_json(author)}


def author_json(name: str) -> dict[str, Any]:
    """Return a user, in the Hub's form."""
    return {"_id": object_id(f"user:{name}"), "name": name, "fullname": name, "type": "user", "isPro": False}


def event_json(event: Event) -> dict[str, Any]:
    """Return an event, in the Hub's form."""
    return {
        "id": event.id,
        "type": event.kind,
        "author": author_json(event.author),
        "createdAt": event.date,
        "data": event.details,
    }


def summary_json(discussion: Discussion) -> dict[str, Any]:
    """Return a discussion as listings show it."""
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "author": author_json(discussion.author),
        "createdAt": discussion.date,
        "repo": {"name": discussion.repo_id, "type": "model"},
        "pinned": False,
    }


def details_json(discussion: Discussion, diff: str | None) -> dict[str, Any]:
    """Return a discussion with its history, and for pull requests what they would change."""
    details = {**summary_json(discussion), "locked": False}
    details["events"] = [event_json(event) for event in discussion.events]
    if discussion.is_pull_request:
        changes: dict[str, Any] = {"base": discussion.base_ref}
        if discussion.merge_commit:
            changes["mergeCommitId"] = discussion.merge_commit
        details |= {"changes": changes, "filesWithConflicts": list(discussion.conflicts)}
        if diff is not None:
            details["diff"] = diff
    return details
