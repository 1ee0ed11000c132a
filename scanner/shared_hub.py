"""A reader of the Hub for one job of a fleet: what many jobs have in common is read once for all of them.

The **subject** is the repository under scan; everything else that a scan looks at (its base, the base's ancestors) is
**foreign** and comes through a ``BaseCache``. Foreign heads are pinned once per run, so that all fine-tunes of a base
are held against the same commit, and what the Hub says of a foreign repository (also that there is none) is asked
once per run. The subject is not kept: it is read once.

Requests are what a fleet runs out of first, so small files of the subject are fetched whole, in one request each.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from typing import Any, Final, TypeVar, cast

from scanner import errors
from scanner.base_cache import BaseCache, SharedFile
from scanner.errors import HubAuditError, HubRateLimited, HubUnreachable, RepoGated, RepoNotFound, RevisionNotFound
from scanner.hub import Hub, RemoteFile
from scanner.hub_described import CommitEntry, described
from scanner.records import FileEntry, RepoRef
from scanner.refs import RepoSpec

SMALL_BYTES: Final = 4 << 20
"""Files of the subject up to this size are read in one request, whatever part of them is asked for."""
_LASTING = (RepoNotFound, RepoGated, RevisionNotFound)
_PASSING = (HubUnreachable, HubRateLimited)

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _watched(method: _Method) -> _Method:
    """Note when the Hub could not be reached, which a scan may survive as a skip, but should not be final."""

    @wraps(method)
    def call(self: "SharedHub", *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except _PASSING as error:
            self.trouble = f"{type(error).__name__}: {error}"
            raise

    return cast("_Method", call)


class SharedHub(Hub):
    """Reads one subject from the Hub, and everything foreign through a cache. Thread-safe; one per job."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        subject: str,
        cache: BaseCache | None = None,
        run: str = "",
        listed: tuple[str, Mapping[str, Any]] | None = None,
        **limits: Any,
    ) -> None:
        """Prepare a reader.

        Args:
            endpoint: as for ``Hub``.
            token: as for ``Hub``.
            subject: the repository under scan.
            cache: what is shared; without one this is a plain reader that fetches small files whole.
            run: names the run; foreign heads are pinned once per name.
            listed: head commit of the subject and what a listing said of it, which saves a request.
            limits: further arguments of ``Hub``.
        """
        super().__init__(endpoint, token, **limits)
        self.pins: dict[str, str] = {}
        """Repository (with ``@revision`` where one was asked for) → commit, of all heads looked up; "" for none."""
        self.trouble: str | None = None
        """The last sign that the Hub could not be reached, also where the scan went on without the answer."""
        self._subject = subject
        self._cache = cache
        self._run = run
        self._listed = listed
        self._subjects: set[RepoRef] = set()
        self._listings: dict[RepoRef, tuple[FileEntry, ...]] = {}
        self._small: dict[str, bytes] = {}
        self._small_lock = threading.Lock()

    @_watched
    def resolve(self, spec: RepoSpec) -> RepoRef:
        """Pin a spec; the subject's listed head and foreign heads already pinned in this run cost nothing."""
        if spec.repo_id is None:
            return super().resolve(spec)
        name = f"{spec.repo_id}@{spec.revision}" if spec.revision else spec.repo_id
        if spec.repo_id == self._subject:
            ref = self._resolve_subject(spec)
            self._subjects.add(ref)
        else:
            try:
                ref = super().resolve(spec) if self._cache is None else self._resolve_foreign(spec, self._cache)
            except _LASTING:
                self.pins[name] = ""
                raise
        self.pins[name] = str(ref.revision)
        return ref

    @_watched
    def describe(self, ref: RepoRef) -> Mapping[str, Any]:
        """As ``Hub.describe``; foreign repositories are asked about once per run."""
        if ref in self._subjects and self._listed is not None and ref.revision == self._listed[0]:
            return {**_revived(self._listed[1]), "security": self._security(ref)}
        if not self._is_shared(ref):
            return super().describe(ref)
        return _revived(
            json.loads(self._once(ref, f"describe {self._run}", lambda: _json(super(SharedHub, self).describe(ref))))
        )

    @_watched
    def files(self, ref: RepoRef) -> tuple[FileEntry, ...]:
        """As ``Hub.files``; remembered."""
        known = self._listings.get(ref)
        if known is not None:
            return known
        if not self._is_shared(ref):
            listed = super().files(ref)
        else:
            raw = self._once(
                ref, "files", lambda: _json([_listed(entry) for entry in super(SharedHub, self).files(ref)])
            )
            listed = tuple(
                FileEntry(path=path, size_bytes=size, sha256=sha, xet_hash=xet, blob_id=blob)
                for path, size, sha, xet, blob in json.loads(raw)
            )
        self._listings[ref] = listed
        return listed

    @_watched
    def commits(self, ref: RepoRef, limit: int) -> tuple[CommitEntry, ...]:
        """As ``Hub.commits``; the history of a foreign repository is read once."""
        if not self._is_shared(ref):
            return super().commits(ref, limit)
        raw = self._once(
            ref, f"commits {limit}", lambda: _json([asdict(one) for one in super(SharedHub, self).commits(ref, limit)])
        )
        return tuple(CommitEntry(**one) for one in json.loads(raw))

    @_watched
    def read_bytes(self, ref: RepoRef, path: str, *, limit_bytes: int) -> bytes:
        """As ``Hub.read_bytes``; foreign files are read once."""
        if not self._is_shared(ref):
            return super().read_bytes(ref, path, limit_bytes=limit_bytes)
        return self._once(
            ref,
            f"file {limit_bytes} {path}",
            lambda: super(SharedHub, self).read_bytes(ref, path, limit_bytes=limit_bytes),
        )

    @_watched
    def locate(self, ref: RepoRef, path: str) -> RemoteFile:
        """As ``Hub.locate``, but without a request where the listing gives the size and the place is not needed."""
        entry = next((item for item in self._listings.get(ref, ()) if item.path == path), None)
        if entry is not None and (self._is_shared(ref) or self._is_small(ref, entry.size_bytes)):
            return RemoteFile(ref=ref, path=path, size_bytes=entry.size_bytes, location="")
        return super().locate(ref, path)

    @_watched
    def read_into(
        self, remote: RemoteFile, start: int, buffer: bytearray | memoryview, *, stop: threading.Event | None = None
    ) -> None:
        """As ``Hub.read_into``; foreign ranges through the cache, small files of the subject from one request."""
        view = memoryview(buffer).cast("B")
        if start < 0 or start + len(view) > remote.size_bytes:
            raise ValueError(f"bytes {start} to {start + len(view)} are not inside a file of {remote.size_bytes}")
        if remote.location:
            super().read_into(remote, start, view, stop=stop)
        elif self._is_shared(remote.ref):
            assert self._cache is not None

            def fetch(at: int, into: memoryview) -> None:
                # Hub.read_into asks for the location through self, which must now be the real one.
                super(SharedHub, self).read_into(self._located_for(remote), at, into, stop=stop)

            self._cache.fill(self._shared_file(remote), start, view, fetch, stop=stop)
        else:
            view[:] = memoryview(self._whole(remote))[start : start + len(view)]

    def _resolve_subject(self, spec: RepoSpec) -> RepoRef:
        if self._listed is not None and spec.revision in {None, self._listed[0]}:
            return RepoRef(repo_id=self._subject, revision=self._listed[0])
        known = next(
            (ref for ref in self._subjects if spec.revision is not None and ref.revision == spec.revision), None
        )
        return known or super().resolve(spec)

    def _resolve_foreign(self, spec: RepoSpec, cache: BaseCache) -> RepoRef:
        """Pin a foreign head once per run; that it does not exist is remembered as well."""

        def ask() -> bytes:
            try:
                ref = super(SharedHub, self).resolve(spec)
            except _LASTING as error:
                return _json({"error": type(error).__name__, "text": str(error)})
            return _json({"repo_id": ref.repo_id, "revision": ref.revision})

        owner = (self.endpoint, "run", self._run)
        answer = json.loads(cache.document(owner, f"{spec.repo_id}@{spec.revision or ''}", ask))
        if "error" in answer:
            kind: type[HubAuditError] = getattr(errors, answer["error"])
            raise kind(answer["text"])
        ref = RepoRef(repo_id=answer["repo_id"], revision=answer["revision"])
        if ref.repo_id == self._subject:  # a redirect to the subject itself: read it as what it is
            self._subjects.add(ref)
        else:
            cache.touch(self.endpoint, ref.name, str(ref.revision))
        return ref

    def _security(self, ref: RepoRef) -> Any:
        with self._session.asking(self._session.asked(ref)):
            scanned = self._api.model_info(ref.name, revision=ref.revision, securityStatus=True)
            return described(scanned, scanned.security_repo_status)["security"]

    def _is_shared(self, ref: RepoRef) -> bool:
        return self._cache is not None and ref.repo_id is not None and ref not in self._subjects

    def _is_small(self, ref: RepoRef, size_bytes: int) -> bool:
        return ref in self._subjects and 0 < size_bytes <= SMALL_BYTES

    def _once(self, ref: RepoRef, name: str, make: Callable[[], bytes]) -> bytes:
        assert self._cache is not None
        return self._cache.document((self.endpoint, ref.name, str(ref.revision)), name, make)

    def _shared_file(self, remote: RemoteFile) -> SharedFile:
        return SharedFile(
            endpoint=self.endpoint,
            repo_id=remote.ref.name,
            revision=str(remote.ref.revision),
            path=remote.path,
            size_bytes=remote.size_bytes,
        )

    def _located_for(self, remote: RemoteFile) -> RemoteFile:
        found = super().locate(remote.ref, remote.path)
        if found.size_bytes != remote.size_bytes:
            raise HubUnreachable(
                f"The Hub lists {remote.path!a} of {remote.ref.name} with {remote.size_bytes:,} bytes and offers "
                f"{found.size_bytes:,}; run again later."
            )
        return found

    def _whole(self, remote: RemoteFile) -> bytes:
        with self._small_lock:
            content = self._small.get(remote.path)
            if content is None:
                content = super().read_bytes(remote.ref, remote.path, limit_bytes=remote.size_bytes)
                if len(content) != remote.size_bytes:
                    raise HubUnreachable(
                        f"{remote.path!a} of {remote.ref.name} arrived with {len(content):,} instead of "
                        f"{remote.size_bytes:,} bytes; run again later."
                    )
                self._small[remote.path] = content
        return content


def _listed(entry: FileEntry) -> list[Any]:
    return [entry.path, entry.size_bytes, entry.sha256, entry.xet_hash, entry.blob_id]


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _revived(about: Mapping[str, Any]) -> dict[str, Any]:
    """Give what went through JSON its tuples back."""
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items()}
    security = found.get("security")
    if isinstance(security, dict):
        found["security"] = {**security, "issues": tuple(security.get("issues", ()))}
    return found
