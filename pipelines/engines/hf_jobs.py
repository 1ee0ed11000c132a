"""HF Jobs: the same command on the Hub's own machines, next to the data.

This is no ``Engine``: a job on the Hub is a whole driver with local workers, so what is sent is the command line that
one would type here. The container is thrown away at its end; what outlives it is a bucket, mounted as a folder, that
the ledger is copied to every few minutes and at the end (``--keep-copy``), and from which the next job begins. Only
``submit`` contacts the Hub, and it costs money: the command line calls it with ``--yes`` alone.
"""

import re
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from huggingface_hub import HfApi, JobInfo, Volume
from huggingface_hub.errors import HfHubHTTPError

from pipelines.settings import tool_version
from scanner.errors import BadReference, CouldNotConclude

MOUNT: Final = "/ledgers"
LOCAL: Final = "/tmp/fleet.sqlite"  # noqa: S108 - in a container of its own
FLAVOR: Final = "cpu-upgrade"
TIMEOUT: Final = "6h"
_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPlan:
    """One job on the Hub: the command that runs there, on what, and where its ledger is kept."""

    arguments: tuple[str, ...]
    bucket: str
    name: str
    flavor: str = FLAVOR
    timeout: str = TIMEOUT
    namespace: str | None = None
    dependencies: tuple[str, ...] = field(default_factory=lambda: (f"hubaudit=={tool_version()}",))

    @property
    def shown(self) -> str:
        """The same as a command that a person could type, and what it needs."""
        options = [
            "hf",
            "jobs",
            "uv",
            "run",
            "--flavor",
            self.flavor,
            "--timeout",
            self.timeout,
            "--secrets",
            "HF_TOKEN",
        ]
        options += ["-v", f"hf://buckets/{self.bucket}:{MOUNT}"]
        options += [part for name in self.dependencies for part in ("--with", name)]
        options += ["--namespace", self.namespace] if self.namespace else []
        return shlex.join([*options, "hubaudit", *self.arguments])


def plan_job(
    arguments: Sequence[str],
    *,
    bucket: str | None,
    name: str,
    flavor: str = FLAVOR,
    timeout: str = TIMEOUT,
    namespace: str | None = None,
    dependencies: Sequence[str] = (),
) -> JobsPlan:
    """Return the job that runs ``hubaudit fleet`` with these arguments.

    Args:
        arguments: of ``hubaudit fleet``, without engine, ledger and cache.
        bucket: where the ledger is kept, ``org/bucket``.
        name: of the ledger in the bucket.
        flavor: the hardware, as HF Jobs names it.
        timeout: the longest that the job may run, for example ``6h``.
        namespace: who pays; the token's user when None.
        dependencies: what to install instead of this version of hubaudit from the package index.

    Raises:
        BadReference: the bucket is missing, or a name cannot be one.
    """
    if bucket is None:
        raise BadReference("--engine hf-jobs needs --bucket org/name: the ledger must outlive the job's container.")
    if not _BUCKET.fullmatch(bucket):
        raise BadReference(f"--bucket {bucket[:80]!a} is not a bucket; give org/name.")
    if not _NAME.fullmatch(name):
        raise BadReference(f"{name[:80]!a} cannot be the name of a ledger in a bucket; rename it.")
    full = (
        "fleet",
        *arguments,
        "--engine",
        "local",
        "--ledger",
        LOCAL,
        "--keep-copy",
        f"{MOUNT}/{name}",
        "--log",
        "json",
    )
    return JobsPlan(
        arguments=full,
        bucket=bucket,
        name=name,
        flavor=flavor,
        timeout=timeout,
        namespace=namespace,
        **({"dependencies": tuple(dependencies)} if dependencies else {}),
    )


def submit(plan: JobsPlan, *, endpoint: str, token: str | None) -> str:
    """Start the job and return its address.

    Raises:
        CouldNotConclude: the Hub refused.
    """
    api = HfApi(endpoint=endpoint, token=token, library_name="hubaudit", library_version=tool_version())
    try:
        secret = token or _stored_token()
        with warnings.catch_warnings():
            # The client calls this method experimental; its shape is checked by our tests.
            warnings.simplefilter("ignore", UserWarning)
            return _start(api, plan, secret)
    except HfHubHTTPError as error:
        said = error.server_message or "no reason given"
        raise CouldNotConclude(
            f"The Hub did not start the job ({said}); check that HF_TOKEN may run jobs, and that the bucket exists."
        ) from error


def _start(api: HfApi, plan: JobsPlan, secret: str | None) -> str:
    job: JobInfo = api.run_uv_job(
        "hubaudit",
        script_args=list(plan.arguments),
        dependencies=list(plan.dependencies),
        secrets={"HF_TOKEN": secret} if secret else None,
        flavor=plan.flavor,
        timeout=plan.timeout,
        name=f"hubaudit-{plan.name}"[:63],
        volumes=[Volume(type="bucket", source=plan.bucket, mount_path=MOUNT)],
        namespace=plan.namespace,
    )
    return str(job.url)


def _stored_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()
