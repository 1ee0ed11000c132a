"""``LocalHub``: start the server, publish repositories, read back what clients did to them."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from localhub.accounts import Account, Role, token_for
from localhub.blobs import FileLike, entry_for
from localhub.connection import Listener
from localhub.discussions import Discussion
from localhub.faults import Faults
from localhub.requestlog import RequestLog
from localhub.state import Settings, State
from localhub.store import MAIN, Repo

GIT_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class LocalHub:
    """A Hub on loopback. Use as a context manager, or call ``close``.

    Args:
        port: where to listen; 0 picks a free port.
        settings: throttle, CDN mode and page size; ``configure`` changes them later.
    """

    def __init__(self, *, port: int = 0, settings: Settings | None = None) -> None:
        self._listeners = (
            Listener(port, "hub", lambda: self._state),
            Listener(0, "cdn", lambda: self._state),
        )
        self._state = self._fresh(settings or Settings())
        for listener in self._listeners:
            # A short poll makes ``close`` quick; idle waiting costs nothing measurable.
            threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()

    def _fresh(self, settings: Settings) -> State:
        hub, cdn = self._listeners
        return State(endpoint=hub.endpoint, cdn_endpoint=cdn.endpoint, settings=settings)

    @property
    def endpoint(self) -> str:
        """The URL to set as ``HF_ENDPOINT``."""
        return self._listeners[0].endpoint

    @property
    def cdn_endpoint(self) -> str:
        """The URL of the second port, a foreign origin to clients."""
        return self._listeners[1].endpoint

    @property
    def faults(self) -> Faults:
        """The faults to inject."""
        return self._state.faults

    @property
    def log(self) -> RequestLog:
        """The requests so far."""
        return self._state.log

    @property
    def crashes(self) -> tuple[str, ...]:
        """Tracebacks of bugs in the server, and of clients that broke its rules; a test should end with none."""
        return tuple(self._state.crashes)

    def configure(self, **changes: Any) -> None:
        """Change fields of ``Settings`` from the next request on."""
        with self._state.lock:
            self._state.apply(replace(self._state.settings, **changes))

    def reset(self) -> None:
        """Forget repositories, tokens, faults, log and settings; ports and connections stay."""
        old = self._state
        self._state = self._fresh(Settings())
        old.over.set()

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, FileLike] | None = None,
        *,
        folder: Path | None = None,
        private: bool = False,
        gated: bool | str = False,
        disabled: bool = False,
        pull_requests: bool = True,
        downloads: int = 0,
        likes: int = 0,
        security: dict[str, Any] | None = None,
    ) -> str:
        """Publish a repository and return the commit of its main branch.

        Args:
            repo_id: ``org/name``; an existing repository of that name is replaced.
            files: contents by path. Paths are taken as they are, hostile ones too.
            folder: publish every file below it, from where it lies; ``files`` win over it.
            private: hidden from everyone outside the namespace.
            gated: False, ``"auto"`` or ``"manual"``; files need ``grant``.
            disabled: answered with 403, as for a takedown.
            pull_requests: False makes the owner's refusal of pull requests a 403.
            downloads: sort key of listings.
            likes: sort key of listings.
            security: ``{"scansDone": bool, "filesWithIssues": [{"path", "level"}]}``.
        """
        entries = {path: entry_for(path, file) for path, file in _gather(files, folder).items()}
        state = self._state
        repo = Repo(
            repo_id=repo_id,
            created=state.now(),
            private=private,
            gated=gated,
            disabled=disabled,
            pull_requests=pull_requests,
            downloads=downloads,
            likes=likes,
            security=security,
        )
        first = {".gitattributes": entry_for(".gitattributes", GIT_ATTRIBUTES)}
        with state.lock:
            commit = repo.commit(MAIN, changes=first, title="initial commit", author=repo.owner, date=state.now())
            if entries:
                commit = repo.commit(MAIN, changes=entries, title="Upload files", author=repo.owner, date=state.now())
            state.repos[repo_id] = repo
        return commit.id

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, FileLike] | None = None,
        *,
        delete: Iterable[str] = (),
        ref: str = MAIN,
        title: str = "Upload files",
        author: str | None = None,
    ) -> str:
        """Add a commit as the owner would and return its hash; a new ``refs/heads/…`` starts at main."""
        entries = {path: entry_for(path, file) for path, file in (files or {}).items()}
        state = self._state
        with state.lock:
            repo = state.repos[repo_id]
            repo.refs.setdefault(ref, repo.head.id)
            commit = repo.commit(
                ref, changes=entries, deletions=delete, title=title, author=author or repo.owner, date=state.now()
            )
        return commit.id

    def set_ref(self, repo_id: str, ref: str, revision: str) -> None:
        """Point ``refs/heads/…`` or ``refs/tags/…`` at a revision."""
        with self._state.lock:
            repo = self._state.repos[repo_id]
            repo.refs[ref] = repo.resolve(revision).id

    def redirect(self, old: str, new: str) -> None:
        """Answer requests for the repository ``old`` (a bare name too) with 307 to ``new``, as after renaming."""
        self._state.redirects[old] = new

    def token(self, user: str, role: Role = "write", *, orgs: Iterable[str] = ()) -> str:
        """Return a token of a user; with role write it may write to the user's namespace and to ``orgs``."""
        token = token_for(user, role)
        self.register_token(token, user, role, orgs=orgs)
        return token

    def register_token(self, token: str, user: str, role: Role = "write", *, orgs: Iterable[str] = ()) -> None:
        """Accept a token of the caller's choice."""
        self._state.tokens[token] = Account(user=user, role=role, orgs=frozenset(orgs))

    def grant(self, user: str, repo_id: str) -> None:
        """Let a user read a gated or private repository."""
        self._state.repos[repo_id].readers.add(user)

    def sha(self, repo_id: str, revision: str = "main") -> str:
        """Return the commit hash of a revision."""
        with self._state.lock:
            return self._state.repos[repo_id].resolve(revision).id

    def paths(self, repo_id: str, revision: str = "main") -> tuple[str, ...]:
        """Return the paths of all files at a revision, sorted."""
        with self._state.lock:
            return tuple(sorted(self._state.repos[repo_id].resolve(revision).tree))

    def read(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        """Return a file, without a request."""
        with self._state.lock:
            return self._state.repos[repo_id].resolve(revision).tree[path].read()

    def discussions(self, repo_id: str) -> tuple[Discussion, ...]:
        """Return the discussions and pull requests of a repository, oldest first."""
        with self._state.lock:
            return tuple(self._state.repos[repo_id].discussions.values())

    def close(self) -> None:
        """Stop listening; requests in progress end with their connections."""
        self._state.over.set()
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _gather(files: Mapping[str, FileLike] | None, folder: Path | None) -> dict[str, FileLike]:
    found: dict[str, FileLike] = {}
    if folder is not None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    return found | dict(files or {})
