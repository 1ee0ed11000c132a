"""HF Jobs: takes the order and says that it is scheduled. Nothing is run."""

import re
from typing import Any

from localhub.accounts import require_writer
from localhub.stamps import object_id
from localhub.state import Call
from localhub.wire import HubError, Reply


def start(call: Call, namespace: str) -> Reply:
    """Start a job for a namespace of the caller."""
    account = require_writer(call.account)
    if namespace not in {account.user, *account.orgs}:
        raise HubError(403, f"You don't have the rights to run jobs for {namespace}")
    spec = call.request.json()
    for key, kind in {"command": list, "environment": dict, "flavor": str}.items():
        if not isinstance(spec.get(key), kind):
            raise HubError(400, f'"{key}" is missing')
    if not re.fullmatch(r"[a-z0-9-]+", spec["flavor"]):
        raise HubError(400, f"Unknown flavor {spec['flavor']}")
    job: dict[str, Any] = {
        "id": object_id(f"job {namespace} {len(call.state.jobs)}"),
        "createdAt": call.state.now(),
        "dockerImage": spec.get("dockerImage"),
        "spaceId": spec.get("spaceId"),
        "command": spec["command"],
        "arguments": spec.get("arguments", []),
        "environment": spec["environment"],
        # The Hub shows the names of secrets, never what they hold.
        "secrets": dict.fromkeys(spec.get("secrets") or {}, None),
        "flavor": spec["flavor"],
        "labels": spec.get("labels"),
        "volumes": spec.get("volumes"),
        "status": {"stage": "SCHEDULING", "message": None},
        "owner": {"id": object_id(namespace), "name": namespace, "type": "user"},
    }
    call.state.jobs.append({**spec, "namespace": namespace, "id": job["id"]})
    return Reply.of_json(job)
