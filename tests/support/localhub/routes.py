"""Which function answers which request.

Patterns match the raw path: a pull request's ref is the single segment ``refs%2Fpr%2F1``, and decoding first would
tear it apart. What a group caught is decoded afterwards.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from localhub import api_discussions, api_jobs, api_read, api_write, files, pages
from localhub.api_datasets import as_dataset
from localhub.requestlog import Side
from localhub.state import Call
from localhub.wire import HubError, Reply

MODEL = r"/api/models/(?P<org>[^/]+)/(?P<name>[^/]+)"
REPO = r"/(?!api/)(?P<org>[^/]+)/(?P<name>[^/]+)"
DATASET = r"/api/datasets/(?P<org>[^/]+)/(?P<name>[^/]+)"
DATASET_REPO = r"/datasets/(?P<org>[^/]+)/(?P<name>[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
NUM = r"(?P<num>[0-9]{1,9})"
COMMENT = r"(?P<comment_id>[0-9a-f]+)"
SHA256 = r"(?P<sha256>[0-9a-f]{64})"


@dataclass(frozen=True, slots=True)
class Route:
    """A method, a pattern for the raw path, and the function whose arguments are named like the groups."""

    method: str
    pattern: re.Pattern[str]
    answer: Callable[..., Reply]


def _route(method: str, pattern: str, answer: Callable[..., Reply]) -> Route:
    return Route(method, re.compile(pattern), answer)


READING = (
    _route("GET", r"/api/agent-harnesses", api_read.agent_harnesses),
    _route("GET", r"/api/telemetry/.*", api_read.telemetry),
    _route("GET", r"/api/models", api_read.list_models),
    _route("GET", MODEL, api_read.model_info),
    _route("GET", rf"{MODEL}/revision/{REVISION}", api_read.model_info),
    _route("GET", rf"{MODEL}/auth-check", api_read.auth_check),
    _route("GET", rf"{MODEL}/tree/{REVISION}", api_read.tree),
    _route("GET", rf"{MODEL}/tree/{REVISION}/(?P<path>.+)", api_read.tree),
    _route("POST", rf"{MODEL}/paths-info/{REVISION}", api_read.paths_info),
    _route("GET", rf"{MODEL}/refs", api_read.refs),
    _route("GET", rf"{MODEL}/commits/{REVISION}", api_read.commits),
    _route("GET", rf"{MODEL}/safetensors-metadata/(?P<path>.+)", api_read.safetensors_metadata),
    _route("GET", rf"{REPO}/resolve/{REVISION}/(?P<path>.+)", files.resolve),
)
WRITING = (
    _route("GET", r"/api/whoami-v2", api_write.whoami),
    _route("POST", r"/api/validate-yaml", api_write.validate_yaml),
    _route("POST", r"/api/repos/create", api_write.create_repo),
    _route("POST", rf"{MODEL}/preupload/{REVISION}", api_write.preupload),
    _route("POST", rf"{MODEL}/commit/{REVISION}", api_write.commit),
    _route("GET", rf"{MODEL}/xet-(?:read|write)-token/{REVISION}", api_write.xet_token),
    _route("POST", rf"{REPO}\.git/info/lfs/objects/batch", api_write.lfs_batch),
    _route("POST", rf"{REPO}\.git/info/lfs/objects/verify", api_write.lfs_verify),
)
DATASETS = (
    _route("GET", DATASET, as_dataset(api_read.model_info)),
    _route("GET", rf"{DATASET}/revision/{REVISION}", as_dataset(api_read.model_info)),
    _route("GET", rf"{DATASET}/tree/{REVISION}", as_dataset(api_read.tree)),
    _route("GET", rf"{DATASET}/tree/{REVISION}/(?P<path>.+)", as_dataset(api_read.tree)),
    _route("POST", rf"{DATASET}/paths-info/{REVISION}", as_dataset(api_read.paths_info)),
    _route("POST", rf"{DATASET}/preupload/{REVISION}", as_dataset(api_write.preupload)),
    _route("POST", rf"{DATASET}/commit/{REVISION}", as_dataset(api_write.commit)),
    _route("POST", rf"{DATASET_REPO}\.git/info/lfs/objects/batch", as_dataset(api_write.lfs_batch)),
    _route("POST", rf"{DATASET_REPO}\.git/info/lfs/objects/verify", as_dataset(api_write.lfs_verify)),
    _route("GET", rf"{DATASET_REPO}/resolve/{REVISION}/(?P<path>.+)", as_dataset(files.resolve)),
)
JOBS = (_route("POST", r"/api/jobs/(?P<namespace>[^/]+)", api_jobs.start),)
TALKING = (
    _route("GET", rf"{MODEL}/discussions", api_discussions.list_discussions),
    _route("POST", rf"{MODEL}/discussions", api_discussions.create),
    _route("GET", rf"{MODEL}/discussions/{NUM}", api_discussions.details),
    _route("POST", rf"{MODEL}/discussions/{NUM}/comment", api_discussions.comment),
    _route("POST", rf"{MODEL}/discussions/{NUM}/comment/{COMMENT}/edit", api_discussions.edit_comment),
    _route("POST", rf"{MODEL}/discussions/{NUM}/comment/{COMMENT}/hide", api_discussions.hide_comment),
    _route("POST", rf"{MODEL}/discussions/{NUM}/status", api_discussions.change_status),
    _route("POST", rf"{MODEL}/discussions/{NUM}/title", api_discussions.change_title),
    _route("POST", rf"{MODEL}/discussions/{NUM}/merge", api_discussions.merge),
    _route("GET", rf"{REPO}/discussions/{NUM}", pages.discussion),
    _route("GET", REPO, pages.repository),
)
CDN = (
    _route("GET", rf"/repos{DATASET_REPO}/{SHA256}", as_dataset(files.cdn)),
    _route("PUT", rf"/repos{DATASET_REPO}/{SHA256}", as_dataset(api_write.lfs_upload)),
    _route("GET", rf"/repos{REPO}/{SHA256}", files.cdn),
    _route("PUT", rf"/repos{REPO}/{SHA256}", api_write.lfs_upload),
)
ROUTES: dict[Side, tuple[Route, ...]] = {"hub": DATASETS + JOBS + READING + WRITING + TALKING, "cdn": CDN}


def answer(call: Call, side: Side) -> Reply:
    """Return the reply to a request.

    Raises:
        HubError: the answer is an error.
    """
    moved = _moved(call)
    if moved is not None:
        return Reply(status=307, headers={"Location": moved})
    method = "GET" if call.request.method == "HEAD" else call.request.method
    for route in ROUTES[side]:
        match = route.pattern.fullmatch(call.request.path)
        if match and route.method == method:
            return route.answer(call, **{name: unquote(text) for name, text in match.groupdict().items()})
    raise HubError(404, f"Sorry, we can't find the page you are looking for: {method} {call.request.path}")


def _moved(call: Call) -> str | None:
    """Return the new address of a repository that was renamed, as a path."""
    path = call.request.path
    for old, new in call.state.redirects.items():
        for prefix in (f"/api/models/{old}", f"/{old}"):
            if path == prefix or path.startswith(f"{prefix}/"):
                query = "&".join(f"{key}={value}" for key, values in call.request.query.items() for value in values)
                renamed = prefix.removesuffix(old) + new + path.removeprefix(prefix)
                return renamed + (f"?{query}" if query else "")
    return None
