"""Who asks the Hub, and how a request ends: with an answer, or with one of our errors.

``HubSession`` knows the endpoint, the token and the limits. It opens the scope in which the shared client counts and
retries, words what the client library raises, and repeats the raw downloads that only their caller can judge.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from scanner.errors import BadReference, HubUnreachable
from scanner.hub_bytes import BadAnswer
from scanner.hub_refusals import Asked, refusal
from scanner.hub_transport import (
    RETRIED_ERRORS,
    RETRIED_STATUS,
    Origin,
    Scope,
    Traffic,
    origin_of,
    problem_of,
    reading,
    session,
)
from scanner.paths import shown
from scanner.patience import Patience, ReadPolicy
from scanner.quota import Governor
from scanner.records import RepoRef

DISTRIBUTION = "hubaudit"
_T = TypeVar("_T")


class HubSession:
    """One endpoint, one token, one set of limits and counters. Thread-safe."""

    def __init__(
        self,
        endpoint: str | None,
        token: str | None,
        policy: ReadPolicy,
        governor: Governor | None = None,
        most_requests: int | None = None,
    ) -> None:
        """Prepare a session; no request is made.

        ``governor`` shares a quota with other readers; after ``most_requests`` every further one fails.

        Raises:
            BadReference: the endpoint is not an http or https URL.
        """
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        origin = _origin_or_none(self.endpoint)
        if origin is None:
            raise BadReference(f"{shown(self.endpoint)} is not the URL of a Hub; correct HF_ENDPOINT.")
        if token is None and origin == _origin_or_none(constants.ENDPOINT):
            token = get_token()
        self.token: str | bool = token or False
        self.traffic = Traffic(most_requests)
        self.scope = Scope(policy=policy, traffic=self.traffic, origin=origin, governor=governor)
        self.api = HfApi(endpoint=self.endpoint, token=self.token, library_name="hubaudit", library_version=_version())
        self._headers = _headers(self.token)
        self._anonymous = _headers(False)

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the request headers for a URL: with the token on the Hub itself, without it anywhere else."""
        return self._headers if origin_of(url) == self.scope.origin else self._anonymous

    @property
    def client(self) -> httpx2.Client:
        """The shared client of huggingface_hub."""
        return session()

    def asked(self, ref: RepoRef, path: str | None = None) -> Asked:
        """Return what a request about a pinned repository, or a file of it, is about."""
        return self.about(ref.name, ref.revision, path)

    def about(self, repo: str = "", revision: str | None = None, path: str | None = None) -> Asked:
        """Return what a request is about."""
        return Asked(endpoint=self.endpoint, repo=repo, revision=revision, path=path, authenticated=bool(self.token))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Give the calls of huggingface_hub in this block the limits, retries and counters of this reader.

        Errors other than those of the network keep the classes of huggingface_hub.
        """
        session()
        with reading(self.scope):
            yield

    @contextmanager
    def asking(self, asked: Asked) -> Iterator[None]:
        """Send the requests of this block as this session; word what the client library raises in our errors."""
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

    def patiently(
        self,
        fetch: Callable[[], _T],
        asked: Asked,
        *,
        stop: threading.Event | None = None,
        relocate: Callable[[], None] | None = None,
    ) -> _T:
        """Fetch until it works, with pauses.

        An error answer of the Hub itself is final; one of the storage behind it may only mean that a signed address
        has expired.

        Args:
            fetch: one attempt; it raises ``BadAnswer`` or an httpx error when it fails.
            asked: what it is about.
            stop: ends a pause at once.
            relocate: called before the next attempt when the address no longer serves.

        Raises:
            CouldNotConclude: refused, or no attempt is left.
            ReadStopped: ``stop`` was set during a pause.
        """
        patience = Patience(self.scope.policy, str(asked), stop=stop)
        with self.asking(asked):
            while True:
                try:
                    return fetch()
                except RETRIED_ERRORS as error:
                    patience.wait(problem_of(error))
                except BadAnswer as bad:
                    lasting = bad.status >= 300 and bad.status not in RETRIED_STATUS
                    if lasting and bad.status >= 400 and origin_of(bad.url) == self.scope.origin:
                        raise refusal(bad.status, bad.headers, asked) from None
                    patience.wait(str(bad), status=bad.status, headers=bad.headers)
                    if lasting and relocate is not None:
                        relocate()


def _origin_or_none(url: str) -> Origin | None:
    try:
        origin = origin_of(url)
        host = urlsplit(url).hostname  # stricter than httpx about brackets
    except (httpx2.InvalidURL, ValueError):
        return None
    return origin if origin[0] in {"http", "https"} and host else None


def _headers(token: str | bool) -> dict[str, str]:
    return build_hf_headers(token=token, library_name="hubaudit", library_version=_version())


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"
