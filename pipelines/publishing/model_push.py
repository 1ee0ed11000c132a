"""Pushes a purified folder to the Hub: a new private repository of one's own, or a pull request to an existing one.

Shown first, pushed only when told to. A pull request changes the weights and adds the log and the patch; every other
file of the repository stays as it is. An owner's no (``hubaudit: false`` in the card) is respected.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.publishing.consent import card_opts_out, is_own
from pipelines.publishing.errors import OptedOut, ReplyLost
from pipelines.publishing.hub_writer import HubWriter
from pipelines.purify.patch import PATCH_FILE, read_patch
from pipelines.purify.writer import LOG_FILE
from scanner.errors import BadReference, CouldNotConclude, RepoNotFound
from scanner.folder import list_folder
from scanner.hub import Hub
from scanner.refs import as_repo_id

TITLE = "Purified weights (hubaudit)"
MAX_README_BYTES = 5 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlan:
    """What would be pushed. ``parent`` is the commit that a pull request is based on; None for a new repository."""

    folder: Path
    repo_id: str
    files: tuple[str, ...]
    listing: tuple[str, ...]
    told: str
    parent: str | None
    body: str


class ModelPusher(HubWriter):
    """Pushes model folders as one user."""

    def __init__(self, hub: Hub) -> None:
        """Prepare; no request is made."""
        super().__init__(hub, marker="", titles=(TITLE,))

    def plan(self, folder: Path, repo_id: str, *, form: str) -> PushPlan:
        """Say what pushing would do; reads, never writes.

        Args:
            folder: what ``hubaudit purify`` wrote.
            repo_id: ``org/name``.
            form: ``repo`` or ``pr``.

        Raises:
            BadReference: the id cannot be one, or is not one's own for a new repository.
            CouldNotConclude: nobody is logged in, the repository exists already (``repo``) or does not (``pr``).
            OptedOut: the owner does not want to hear from us.
        """
        if as_repo_id(repo_id) != repo_id or "/" not in repo_id:
            raise BadReference(f"--push-to {repo_id!r} is no repository; write org/name.")
        me = self.account()
        if me is None or me.read_only:
            raise CouldNotConclude("Pushing needs a token that may write: set HF_TOKEN or run `hf auth login`.")
        patch = read_patch(folder / PATCH_FILE)
        changed = {path for path, hashes in patch.files.items() if hashes.before != hashes.after}
        entries = {entry.path: entry.size_bytes for entry in list_folder(str(folder))}
        parent = self._head_or_none(repo_id)
        if form == "repo":
            if not is_own(repo_id, user=me.user, orgs=me.orgs):
                raise BadReference(f"{repo_id} is not yours to create; use --as pr to offer the weights to its owner.")
            if parent is not None:
                raise CouldNotConclude(f"{repo_id} exists already; push to a new name, or use --as pr.")
            files: Sequence[str] = sorted(entries)
            told = f"New private repository {repo_id}, {len(files)} files:"
        else:
            if parent is None:
                raise RepoNotFound(f"{repo_id} was not found, so no pull request can be opened there.")
            self._respect(repo_id, parent)
            files = sorted((changed | {LOG_FILE, PATCH_FILE}) & entries.keys())
            told = f"Pull request to {repo_id} at {parent}, {len(files)} files:"
        return PushPlan(
            folder=folder,
            repo_id=repo_id,
            files=tuple(files),
            listing=tuple(f"  {path}  {entries[path]:,} bytes" for path in files),
            told=told,
            parent=parent,
            body=_body(folder),
        )

    def push(self, plan: PushPlan) -> str:
        """Push what the plan shows, and return one line with the address.

        Raises:
            RepositoryChanged, PublishRefused, ReplyLost: as in ``hub_writer``.
        """
        try:
            with self._writing(plan.repo_id), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of cards without metadata, which are not ours
                if plan.parent is None:
                    self._api.create_repo(plan.repo_id, private=True)
                done = self._api.upload_folder(
                    repo_id=plan.repo_id,
                    folder_path=plan.folder,
                    allow_patterns=[_literal(path) for path in plan.files],
                    commit_message=TITLE,
                    commit_description=plan.body,
                    create_pr=plan.parent is not None,
                    parent_commit=plan.parent,
                )
        except RuntimeError as error:  # how the client reports a large file that did not arrive
            raise ReplyLost(
                f"{plan.repo_id} did not receive every file ({error}); look at it, then try again."
            ) from error
        return f"opened {done.pr_url}" if plan.parent is not None else f"pushed to {self.endpoint}/{plan.repo_id}"

    def _head_or_none(self, repo_id: str) -> str | None:
        try:
            return self.head(repo_id, "main")
        except RepoNotFound:
            return None

    def _respect(self, repo_id: str, revision: str) -> None:
        from scanner.errors import FileNotFound
        from scanner.records import RepoRef

        try:
            card = self._hub.read_bytes(
                RepoRef(repo_id=repo_id, revision=revision), "README.md", limit_bytes=MAX_README_BYTES
            )
        except FileNotFound:
            return
        if card_opts_out(card):
            raise OptedOut(f"The card of {repo_id} opts out (`hubaudit: false`); nothing is pushed there.")


def _body(folder: Path) -> str:
    """The description of the commit: what was done and what is shown, from the log."""
    try:
        told = json.loads((folder / LOG_FILE).read_text(encoding="utf-8"))
        lines = [str(told["chosen"]), *(str(words) for words in told["gate"]["words"])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CouldNotConclude(f"{folder} holds no readable {LOG_FILE}; push what `hubaudit purify` wrote.") from error
    return "\n\n".join((*lines, f"`{PATCH_FILE}` leads back to the weights before, byte for byte."))


def _literal(path: str) -> str:
    """The path as a pattern that matches nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)
