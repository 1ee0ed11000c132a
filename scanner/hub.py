"""The only reader of the Hub: pinned, bounded, patient, and counted.

Every method takes a pinned ``RepoRef`` and answers for local folders as well, so that callers need not ask which of
the two they hold. Nothing is written to disk. What the Hub refuses or fails to deliver is raised as an error of
``scanner.errors`` that names the repository and the next step.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils import paginate  # type: ignore[attr-defined]  # exported lazily

from scanner.errors import (
    BadReference,
    CouldNotConclude,
    FileNotFound,
    FileTooLarge,
    HubUnreachable,
    RepoNotFound,
    RevisionNotFound,
)
from scanner.folder import list_folder, read_file
from scanner.hub_bytes import Span, fetch_span, fetch_whole
from scanner.hub_described import CommitEntry, commit_of, described, entry_of, is_commit
from scanner.hub_session import HubSession
from scanner.hub_transport import origin_of
from scanner.paths import is_plain_path, shown
from scanner.patience import ReadPolicy
from scanner.quota import Governor
from scanner.records import FileEntry, RepoRef
from scanner.refs import RepoSpec, as_repo_id

MAX_FILES = 50_000
"""Entries of one listing (50 requests); no model has more, and a longer list would only cost quota."""
_EXPAND: Any = [
    "author", "baseModels", "createdAt", "disabled", "downloads", "gated", "lastModified", "library_name", "likes",
    "pipeline_tag", "private", "safetensors", "sha", "tags",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a pinned repository and where its bytes can be had; ``location`` may expire."""

    ref: RepoRef
    path: str
    size_bytes: int
    location: str


class Hub:
    """Reads one Hub with one token. Thread-safe; makes no request until asked."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        timeout_seconds: float = 15.0,
        max_wait_seconds: float = 300.0,
        first_wait_seconds: float = 0.5,
        attempts: int = 6,
        governor: Governor | None = None,
        most_requests: int | None = None,
    ) -> None:
        """Prepare a reader.

        Args:
            endpoint: the address of the Hub; the one that huggingface_hub is configured for when None.
            token: what to authenticate with; the stored one when None, but only at the configured endpoint.
            timeout_seconds: the longest silence of the network, per request.
            max_wait_seconds: the sum of the pauses between the attempts at one read.
            first_wait_seconds: the first such pause; each further one doubles, up to sixteen times this.
            attempts: how often one read is tried.
            governor: shares a request quota with other readers; none when None.
            most_requests: requests after which every further one raises ``RequestsSpent``; any number when None.

        Raises:
            BadReference: the endpoint is not an http or https URL.
        """
        policy = ReadPolicy(
            timeout_seconds=timeout_seconds,
            max_wait_seconds=max_wait_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            longest_wait_seconds=16 * first_wait_seconds,
        )
        self._session = HubSession(endpoint, token, policy, governor, most_requests)
        self._api = self._session.api
        self._lock = threading.Lock()
        self._infos: dict[RepoRef, ModelInfo] = {}
        self._located: dict[tuple[RepoRef, str], RemoteFile] = {}
        self._locating: dict[tuple[RepoRef, str], threading.Lock] = {}

    @property
    def endpoint(self) -> str:
        """The address of the Hub, without a slash at the end."""
        return self._session.endpoint

    @property
    def api(self) -> HfApi:
        """The client of huggingface_hub with this endpoint and token, for calls that this class does not make.

        Use it within ``reading``; what it writes is sent once, whatever becomes of the reply.
        """
        return self._session.api

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, redirects and repetitions included."""
        return self._session.traffic.requests

    @property
    def bytes_received(self) -> int:
        """Body bytes received so far, those of failed attempts included."""
        return self._session.traffic.bytes_received

    def resolve(self, spec: RepoSpec) -> RepoRef:
        """Pin a spec to a commit, or check that the folder exists.

        The id is the Hub's own spelling: renamed and legacy repositories (``gpt2``) come back under their present
        name.

        Raises:
            RepoNotFound, RepoGated, RevisionNotFound: it cannot be pinned.
            BadReference: the folder does not exist.
        """
        if spec.path is not None:
            if not Path(spec.path).is_dir():
                raise BadReference(f"{shown(spec.path)} is not an existing folder; check the path.")
            return RepoRef(path=spec.path)
        assert spec.repo_id is not None
        info = self._info(spec.repo_id, spec.revision)
        sha = info.sha
        if not is_commit(sha):
            raise RevisionNotFound(f"{spec.repo_id} has no commit yet; there is nothing to read.")
        if is_commit(spec.revision) and sha != spec.revision:
            raise HubUnreachable(f"The Hub answered with another commit than {spec.revision} of {spec.repo_id}.")
        ref = RepoRef(repo_id=as_repo_id(info.id) or spec.repo_id, revision=sha)
        self._infos[ref] = info
        return ref

    def describe(self, ref: RepoRef) -> Mapping[str, Any]:
        """Return what the Hub itself says about a repository; empty for folders.

        Keys: ``tags`` and ``base_models`` (tuples of str), ``relation`` (str or None), ``gated`` (False, "auto" or
        "manual"), ``private``, ``disabled``, ``downloads``, ``likes``, ``author``, ``created_at`` and ``last_modified``
        (ISO 8601), ``library_name``, ``pipeline_tag``, ``weights_bytes`` (what the Hub counted in safetensors files),
        ``security`` (the Hub's scan: ``done`` and ``issues``, or None), ``sha``.
        Everything is bounded in length. One request after ``resolve``, else two.
        """
        if ref.repo_id is None:
            return {}
        info = self._infos.get(ref) or self._info(ref.repo_id, ref.revision)
        with self._session.asking(self._session.asked(ref)):
            # The security report and `expand` (the only way to baseModels) exclude each other.
            scanned = self._api.model_info(ref.repo_id, revision=ref.revision, securityStatus=True)
            return described(info, scanned.security_repo_status)

    def files(self, ref: RepoRef) -> tuple[FileEntry, ...]:
        """List every file, names verbatim (``scanner.paths.is_plain_path`` says which may be used).

        One request per 1,000 entries.

        Raises:
            CouldNotConclude: more than ``MAX_FILES`` entries.
        """
        if ref.path is not None:
            return list_folder(ref.path)
        with self._session.asking(self._session.asked(ref)):
            tree = self._api.list_repo_tree(ref.name, recursive=True, revision=ref.revision)
            entries = list(islice(tree, MAX_FILES + 1))
            found = tuple(entry_of(item) for item in entries if isinstance(item, RepoFile))
        if len(entries) > MAX_FILES:
            raise CouldNotConclude(f"{ref.name} lists more than {MAX_FILES:,} files; it cannot be scanned whole.")
        return found

    def read_bytes(self, ref: RepoRef, path: str, *, limit_bytes: int) -> bytes:
        """Return a whole small file. One request, two when the file is stored elsewhere.

        Raises:
            FileNotFound: there is none, or the name is not a plain relative path.
            FileTooLarge: it has more than ``limit_bytes`` bytes.
        """
        if ref.path is not None:
            return read_file(ref.path, path, limit_bytes=limit_bytes)
        url, asked = self._url(ref, path), self._session.asked(ref, path)

        def fetch() -> bytes | None:
            return fetch_whole(
                self._session.client,
                url,
                self._session.headers_for(url),
                limit_bytes=limit_bytes,
                scope=self._session.scope,
            )

        content = self._session.patiently(fetch, asked)
        if content is None:
            raise FileTooLarge(f"{asked} is larger than the {limit_bytes:,} bytes that are read of such a file.")
        return content

    def read_text(self, ref: RepoRef, path: str, *, limit_bytes: int) -> str:
        """Return a whole small file as text: UTF-8, what is not valid UTF-8 replaced by U+FFFD. As ``read_bytes``."""
        return self.read_bytes(ref, path, limit_bytes=limit_bytes).decode("utf-8", "replace")

    def locate(self, ref: RepoRef, path: str) -> RemoteFile:
        """Find out where the bytes of a Hub file are and how many there are. One request, remembered.

        Raises:
            FileNotFound, RepoGated: it cannot be had.
            HubUnreachable: the answer lacks the size, or belongs to another commit.
        """
        return self._place(ref, path)

    def read_range(self, remote: RemoteFile, start: int, end: int) -> bytes:
        """Return the bytes ``start`` (included) to ``end`` (excluded) of a file. As ``read_into``."""
        buffer = bytearray(max(0, end - start))
        self.read_into(remote, start, buffer)
        return bytes(buffer)

    def read_into(
        self, remote: RemoteFile, start: int, buffer: bytearray | memoryview, *, stop: threading.Event | None = None
    ) -> None:
        """Fill a writable buffer with the bytes of a file from ``start`` on. One request.

        The server must answer 206 with exactly this range, of a file of exactly the known size, uncompressed and in
        full; anything else is asked for again, from a fresh location where the old one may have expired.

        Args:
            remote: the file, from ``locate``.
            start: the first byte.
            buffer: contiguous; its length says how many bytes.
            stop: when set, give up within one received piece.

        Raises:
            HubUnreachable, HubRateLimited: all attempts failed.
            ReadStopped: ``stop`` was set.
            ValueError: the range is not inside the file.
        """
        view = memoryview(buffer).cast("B")
        span = Span(start=start, end=start + len(view), total=remote.size_bytes)
        if start < 0 or span.end > span.total:
            raise ValueError(f"bytes {span.start} to {span.end} are not inside a file of {span.total}")
        if not view:
            return
        current = self._place(remote.ref, remote.path)

        def fetch() -> None:
            url = current.location
            fetch_span(
                self._session.client,
                url,
                self._session.headers_for(url),
                span,
                view,
                scope=self._session.scope,
                stop=stop,
            )

        def relocate() -> None:
            nonlocal current
            current = self._relocate(current)
            if current.size_bytes != span.total:
                raise HubUnreachable(
                    f"{self._session.asked(current.ref, current.path)} changed while it was read; run again."
                )

        self._session.patiently(fetch, self._session.asked(remote.ref, remote.path), stop=stop, relocate=relocate)

    def commits(self, ref: RepoRef, limit: int) -> tuple[CommitEntry, ...]:
        """Return the newest commits up to the pinned one, newest first; none for folders. One request per page."""
        if ref.repo_id is None:
            return ()
        url = f"{self.endpoint}/api/models/{ref.repo_id}/commits/{ref.revision}"
        with self._session.asking(self._session.asked(ref)):
            # The client's own method fetches every page before it returns the first.
            items = list(islice(paginate(url, params={}, headers=self._session.headers_for(url)), limit))
            return tuple(commit_of(item) for item in items)

    def list_models(
        self,
        *,
        author: str | None = None,
        search: str | None = None,
        tags: tuple[str, ...] = (),
        sort: Any = None,
        limit: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield models as ``describe`` words them (without ``security``), and their ``id``; page by page.

        Args:
            author: a user or organisation.
            search: text in the id.
            tags: all of these, for example ``base_model:finetune:org/name``.
            sort: ``downloads``, ``last_modified``, ``created_at``, ``likes`` or ``trending_score``, descending.
            limit: at most so many.
        """
        asked = self._session.about()
        with self._session.asking(asked):
            models = iter(
                self._api.list_models(
                    author=author, search=search, filter=list(tags) or None, sort=sort, limit=limit, expand=_EXPAND
                )
            )
        while True:
            # The scope must not be open while the caller works between two models.
            with self._session.asking(asked):
                info = next(models, None)
                if info is None:
                    return
                model = described(info)
            yield model

    def has_dataset(self, name: str) -> bool:
        """Whether the Hub has a dataset of that name that this token may see. One request.

        Raises:
            RepoGated: it exists, behind terms.
            HubUnreachable: the network or the Hub failed.
        """
        try:
            with self._session.asking(self._session.about(f"datasets/{name}")):
                self._api.dataset_info(name, expand=["sha"])
        except RepoNotFound:
            return False
        return True

    def reading(self) -> AbstractContextManager[None]:
        """Give the calls of huggingface_hub in a ``with`` block the limits, retries and counters of this reader.

        Errors other than those of the network keep the classes of huggingface_hub.
        """
        return self._session.reading()

    def _info(self, repo_id: str, revision: str | None) -> ModelInfo:
        with self._session.asking(self._session.about(repo_id, revision)):
            return self._api.model_info(repo_id, revision=revision, expand=_EXPAND)

    def _url(self, ref: RepoRef, path: str) -> str:
        """The address of a file. A name that is not plain could lead to another repository."""
        if not is_plain_path(path):
            raise FileNotFound(f"{ref.name}: {shown(path)} is not a plain relative file name, so it is not read.")
        return hf_hub_url(ref.name, path, revision=ref.revision, endpoint=self.endpoint)

    def _place(self, ref: RepoRef, path: str) -> RemoteFile:
        key = (ref, path)
        with self._lock:
            known = self._located.get(key)
            lock = self._locating.setdefault(key, threading.Lock())
        if known is not None:
            return known
        with lock:
            return self._located.get(key) or self._ask_location(ref, path)

    def _ask_location(self, ref: RepoRef, path: str) -> RemoteFile:
        url, asked = self._url(ref, path), self._session.asked(ref, path)
        with self._session.asking(asked):
            found = get_hf_file_metadata(
                url, token=self._session.token, timeout=None, library_name="hubaudit", endpoint=self.endpoint
            )
            if found.size is None or found.size < 0:
                raise HubUnreachable(f"The Hub does not say how large {asked} is; run again later.")
            if found.commit_hash is not None and found.commit_hash != ref.revision:
                raise HubUnreachable(f"The Hub answered with another commit when asked for {asked}; run again later.")
            if loses_encryption(url, found.location):
                raise HubUnreachable(f"The Hub sends {asked} from an unencrypted address; it is not read.")
        remote = RemoteFile(ref=ref, path=path, size_bytes=found.size, location=found.location)
        self._located[ref, path] = remote
        return remote

    def _relocate(self, stale: RemoteFile) -> RemoteFile:
        """A location that differs from the stale one; eight readers that find it stale ask once."""
        key = (stale.ref, stale.path)
        with self._locating[key]:
            known = self._located[key]
            return known if known.location != stale.location else self._ask_location(*key)


def loses_encryption(asked: str, given: str) -> bool:
    """Whether an encrypted address is answered with one that is not."""
    return origin_of(asked)[0] == "https" and origin_of(given)[0] != "https"
