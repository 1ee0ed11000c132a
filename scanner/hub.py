"""The only reader of the Hub: pinned, bounded, patient, and counted.

Every method takes a pinned ``RepoRef`` and answers for local folders as well, so that callers need not ask which of
the two they hold. Nothing is written to disk. What the Hub refuses or fails to deliver is raised as an error of
``scanner.errors`` that names the repository and the next step.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo, RepoFile
from huggingface_hub.utils import build_hf_headers, paginate  # type: ignore[attr-defined]  # both lazy

from scanner.errors import (
    BadReference,
    CouldNotConclude,
    FileNotFound,
    FileTooLarge,
    HubUnreachable,
    RevisionNotFound,
)
from scanner.folder import list_folder, read_file
from scanner.hub_bytes import BadAnswer, Span, fetch_span, fetch_whole
from scanner.hub_described import described, entry_of, is_commit
from scanner.hub_refusals import Asked, refusal
from scanner.hub_transport import (
    RETRIED_ERRORS,
    RETRIED_STATUS,
    Scope,
    Traffic,
    origin_of,
    problem_of,
    reading,
    session,
)
from scanner.paths import is_plain_path, shown
from scanner.patience import Patience, ReadPolicy
from scanner.records import FileEntry, RepoRef
from scanner.refs import RepoSpec, as_repo_id

MAX_FILES = 50_000
"""Entries of one listing (50 requests); no model has more, and a longer list would only cost quota."""
_EXPAND: Any = [
    "author", "baseModels", "disabled", "downloads", "gated", "lastModified", "library_name", "likes",
    "pipeline_tag", "private", "sha", "tags",
]  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a pinned repository and where its bytes can be had; ``location`` may expire."""

    ref: RepoRef
    path: str
    size_bytes: int
    location: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitEntry:
    """One commit; ``created_at`` is ISO 8601 in UTC."""

    commit: str
    title: str
    created_at: str


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
    ) -> None:
        """Prepare a reader.

        Args:
            endpoint: the address of the Hub; the one that huggingface_hub is configured for when None.
            token: what to authenticate with; the stored one when None, but only at the configured endpoint.
            timeout_seconds: the longest silence of the network, per request.
            max_wait_seconds: the sum of the pauses between the attempts at one read.
            first_wait_seconds: the first such pause; each further one doubles, up to sixteen times this.
            attempts: how often one read is tried.

        Raises:
            BadReference: the endpoint is not an http or https URL.
        """
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        origin = _origin_or_none(self.endpoint)
        if origin is None:
            raise BadReference(f"{shown(self.endpoint)} is not the URL of a Hub; correct HF_ENDPOINT.")
        if token is None and origin == _origin_or_none(constants.ENDPOINT):
            token = get_token()
        self._traffic = Traffic()
        policy = ReadPolicy(
            timeout_seconds=timeout_seconds,
            max_wait_seconds=max_wait_seconds,
            attempts=attempts,
            first_wait_seconds=first_wait_seconds,
            longest_wait_seconds=16 * first_wait_seconds,
        )
        self._scope = Scope(policy=policy, traffic=self._traffic, origin=origin)
        self._token: str | bool = token or False
        self._api = HfApi(
            endpoint=self.endpoint, token=self._token, library_name="hubaudit", library_version=_version()
        )
        self._headers = build_hf_headers(token=self._token, library_name="hubaudit", library_version=_version())
        self._anonymous = build_hf_headers(token=False, library_name="hubaudit", library_version=_version())
        self._lock = threading.Lock()
        self._infos: dict[RepoRef, ModelInfo] = {}
        self._located: dict[tuple[RepoRef, str], RemoteFile] = {}
        self._locating: dict[tuple[RepoRef, str], threading.Lock] = {}

    @property
    def requests(self) -> int:
        """HTTP requests sent so far, redirects and repetitions included."""
        return self._traffic.requests

    @property
    def bytes_received(self) -> int:
        """Body bytes received so far, those of failed attempts included."""
        return self._traffic.bytes_received

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
        ref = RepoRef(repo_id=as_repo_id(info.id) or spec.repo_id, revision=sha)
        self._infos[ref] = info
        return ref

    def describe(self, ref: RepoRef) -> Mapping[str, Any]:
        """Return what the Hub itself says about a repository; empty for folders.

        Keys: ``tags`` and ``base_models`` (tuples of str), ``relation`` (str or None), ``gated`` (False, "auto" or
        "manual"), ``private``, ``disabled``, ``downloads``, ``likes``, ``author``, ``last_modified`` (ISO 8601),
        ``library_name``, ``pipeline_tag``, ``security`` (the Hub's scan: ``done`` and ``issues``, or None), ``sha``.
        Everything is bounded in length. One request after ``resolve``, else two.
        """
        if ref.repo_id is None:
            return {}
        info = self._infos.get(ref) or self._info(ref.repo_id, ref.revision)
        with self._asking(ref):
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
        with self._asking(ref):
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
        url, asked = self._url(ref, path), self._asked(ref, path)

        def fetch() -> bytes | None:
            return fetch_whole(session(), url, self._headers, limit_bytes=limit_bytes, scope=self._scope)

        content = self._patiently(fetch, asked)
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
        key = (ref, path)
        with self._lock:
            known = self._located.get(key)
            lock = self._locating.setdefault(key, threading.Lock())
        if known is not None:
            return known
        with lock:
            return self._located.get(key) or self._ask_location(ref, path)

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
        current = self.locate(remote.ref, remote.path)

        def fetch() -> None:
            url = current.location
            headers = self._headers if origin_of(url) == self._scope.origin else self._anonymous
            fetch_span(session(), url, headers, span, view, scope=self._scope, stop=stop)

        def relocate() -> None:
            nonlocal current
            current = self._relocate(current)
            if current.size_bytes != span.total:
                raise HubUnreachable(f"{self._asked(current.ref, current.path)} changed while it was read; run again.")

        self._patiently(fetch, self._asked(remote.ref, remote.path), stop=stop, relocate=relocate)

    def commits(self, ref: RepoRef, limit: int) -> tuple[CommitEntry, ...]:
        """Return the newest commits up to the pinned one, newest first; none for folders. One request per page."""
        if ref.repo_id is None:
            return ()
        url = f"{self.endpoint}/api/models/{ref.repo_id}/commits/{ref.revision}"
        with self._asking(ref):
            # The client's own method fetches every page before it returns the first.
            items = list(islice(paginate(url, params={}, headers=self._headers), limit))
            return tuple(
                CommitEntry(commit=str(i["id"])[:40], title=str(i["title"])[:300], created_at=str(i["date"])[:40])
                for i in items
            )

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
        asked = Asked(endpoint=self.endpoint)
        with self._asking_about(asked):
            models = iter(
                self._api.list_models(
                    author=author, search=search, filter=list(tags) or None, sort=sort, limit=limit, expand=_EXPAND
                )
            )
        while True:
            # The scope must not be open while the caller works between two models.
            with self._asking_about(asked):
                info = next(models, None)
                if info is None:
                    return
                model = described(info)
            yield model

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Give the calls of huggingface_hub in this block the limits, retries and counters of this reader.

        Errors other than those of the network keep the classes of huggingface_hub.
        """
        session()
        with reading(self._scope):
            yield

    def _info(self, repo_id: str, revision: str | None) -> ModelInfo:
        asked = Asked(endpoint=self.endpoint, repo=repo_id, revision=revision, authenticated=bool(self._token))
        with self._asking_about(asked):
            return self._api.model_info(repo_id, revision=revision, expand=_EXPAND)

    def _url(self, ref: RepoRef, path: str) -> str:
        """The address of a file. A name that is not plain could lead to another repository."""
        if not is_plain_path(path):
            raise FileNotFound(f"{ref.name}: {shown(path)} is not a plain relative file name, so it is not read.")
        return hf_hub_url(ref.name, path, revision=ref.revision, endpoint=self.endpoint)

    def _ask_location(self, ref: RepoRef, path: str) -> RemoteFile:
        url, asked = self._url(ref, path), self._asked(ref, path)
        with self._asking_about(asked):
            found = get_hf_file_metadata(
                url, token=self._token, timeout=None, library_name="hubaudit", endpoint=self.endpoint
            )
        if found.size is None or found.size < 0:
            raise HubUnreachable(f"The Hub does not say how large {asked} is; run again later.")
        if found.commit_hash is not None and found.commit_hash != ref.revision:
            raise HubUnreachable(f"The Hub answered with another commit when asked for {asked}; run again later.")
        if origin_of(url)[0] == "https" and origin_of(found.location)[0] != "https":
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

    def _patiently(
        self,
        fetch: Callable[[], _T],
        asked: Asked,
        *,
        stop: threading.Event | None = None,
        relocate: Callable[[], None] | None = None,
    ) -> _T:
        """Fetch until it works. An error answer of the Hub itself is final, one of the storage behind it is not."""
        patience = Patience(self._scope.policy, str(asked), stop=stop)
        with self._asking_about(asked):
            while True:
                try:
                    return fetch()
                except RETRIED_ERRORS as error:
                    patience.wait(problem_of(error))
                except BadAnswer as bad:
                    lasting = bad.status >= 300 and bad.status not in RETRIED_STATUS
                    if lasting and bad.status >= 400 and origin_of(bad.url) == self._scope.origin:
                        raise refusal(bad.status, bad.headers, asked) from None
                    patience.wait(str(bad), status=bad.status, headers=bad.headers)
                    if lasting and relocate is not None:
                        relocate()

    def _asked(self, ref: RepoRef, path: str | None = None) -> Asked:
        return Asked(
            endpoint=self.endpoint, repo=ref.name, revision=ref.revision, path=path, authenticated=bool(self._token)
        )

    def _asking(self, ref: RepoRef) -> Any:
        return self._asking_about(self._asked(ref))

    @contextmanager
    def _asking_about(self, asked: Asked) -> Iterator[None]:
        """Send requests as this reader, and word every failure of the client library in our errors."""
        try:
            with self.reading():
                yield
        except HfHubHTTPError as error:
            raise refusal(error.response.status_code, error.response.headers, asked) from error
        except HFValidationError as error:
            raise BadReference(f"{shown(asked.repo)} cannot be a repository; give org/name.") from error
        except OfflineModeIsEnabled as error:
            raise HubUnreachable(
                f"{asked} was not read: offline mode is on; unset HF_HUB_OFFLINE, or give a local folder."
            ) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise HubUnreachable(
                f"{asked} could not be read: {problem_of(error)}; check the network connection and run again."
            ) from error
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise HubUnreachable(
                f"{asked.endpoint} does not answer like a Hub when asked for {asked}; check HF_ENDPOINT and the proxy."
            ) from error


def _origin_or_none(url: str) -> tuple[str, str, int] | None:
    try:
        origin = origin_of(url)
    except httpx2.InvalidURL:
        return None
    return origin if origin[0] in {"http", "https"} and origin[1] else None


def _version() -> str:
    try:
        return version("hubaudit")
    except PackageNotFoundError:
        return "0"
