"""The errors that hubaudit raises on purpose.

Every message is one sentence for a person and says what to do next. All arguments go to ``super().__init__``
so that an error survives pickling on its way back from a worker process.

::

    HubAuditError
    ├── BadReference        what the user typed is not a model (exit code 2)
    ├── NothingToCompare    no base declared or found, or no weights (exit code 4)
    └── CouldNotConclude    the rest: the answer is unknown, never clean (exit code 3)
        ├── RepoUnavailable
        │   ├── RepoNotFound
        │   ├── RepoGated
        │   ├── RevisionNotFound
        │   ├── FileNotFound
        │   ├── FileTooLarge
        │   └── HubRateLimited
        ├── RequestsSpent   as many requests were sent as the user allows
        ├── HubUnreachable  network, timeouts, server errors after all retries
        ├── CorruptWeights  a header or an index that lies about its file
        └── UnsafeWeights   only readable by running code
"""


class HubAuditError(Exception):
    """Root of all errors raised on purpose; never raised itself."""


class BadReference(HubAuditError):  # noqa: N818
    """The text is not a repository id, a Hub URL or a folder."""


class NothingToCompare(HubAuditError):  # noqa: N818
    """There is no base to compare with, or there are no weights."""


class CouldNotConclude(HubAuditError):  # noqa: N818
    """The scan could not be finished; the subject is not thereby clean."""


class RepoUnavailable(CouldNotConclude):
    """The repository, or a part of it, cannot be read."""


class RepoNotFound(RepoUnavailable):
    """The repository does not exist, or is private and the token may not see it."""


class RepoGated(RepoUnavailable):
    """The repository exists, but access has to be granted by its owner."""


class RevisionNotFound(RepoUnavailable):
    """The repository has no such branch, tag or commit."""


class FileNotFound(RepoUnavailable):
    """The repository has no such file at that revision."""


class FileTooLarge(RepoUnavailable):
    """The file is there, but larger than anyone needs it to be, so it was not read."""


class HubRateLimited(RepoUnavailable):
    """The Hub asked us to slow down for longer than we are ready to wait."""


class RequestsSpent(CouldNotConclude):
    """As many requests were sent as the user allows for one scan."""


class HubUnreachable(CouldNotConclude):
    """Network failure, timeout or server error that outlasted every retry."""


class CorruptWeights(CouldNotConclude):
    """A weight file contradicts itself (header, index, offsets, sizes)."""


class UnsafeWeights(CouldNotConclude):
    """The weights can only be read by running code from the repository."""
