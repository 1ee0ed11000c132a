"""What an interrupted run finds again: a folder for each job, and the method's result once there is one."""

import json
import os
from dataclasses import asdict, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pipelines.purify.job import PurifyJob, PurifyResult, WholeTensors
from scanner.folder import list_folder

_TENSORS: Final = "result.safetensors"
_LOG: Final = "result.json"


def work_folder(output: Path) -> Path:
    """Where what an interrupted run leaves lies: beside the new folder, hidden."""
    return output.resolve().parent / f".{output.name}.work"


def job_key(job: PurifyJob, method: str, candidate: str, base: str | None, version: str) -> str:
    """Return 16 hex digits that are the same for the same job: method, weights, data, settings and seed.

    Args:
        job: its folders, data, options and seed.
        method: the purifier's name.
        candidate: the candidate as it was resolved.
        base: the base likewise.
        version: of this program, whose next one may do otherwise.
    """
    told = {
        "method": method,
        "version": version,
        "candidate": [candidate, _listing(job.candidate)],
        "base": [base, _listing(job.base) if job.base else None],
        "report": [finding.fingerprint for finding in job.report.findings] if job.report else None,
        "data": job.data.digest if job.data else None,
        "options": asdict(job.options) if is_dataclass(job.options) and not isinstance(job.options, type) else None,
        "tuning": asdict(job.tuning),
        "triggers": job.triggers,
        "e_pur": job.with_e_pur,
        "seed": job.seed,
    }
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def keep(folder: Path, result: PurifyResult) -> None:
    """Write a result that lies in memory, so that a later step that fails does not cost the method's hours."""
    if not isinstance(result.edits, WholeTensors):
        return
    from safetensors.torch import save_file

    part = folder / f"{_TENSORS}.part"
    save_file({name: tensor.contiguous().clone() for name, tensor in result.edits.tensors.items()}, part)
    os.replace(part, folder / _TENSORS)  # noqa: PTH105
    _write_json(folder / _LOG, {"chosen": result.chosen, "log": dict(result.log)})


def find(folder: Path) -> PurifyResult | None:
    """Return the result of an earlier run of the same job; None when there is none, or it cannot be read."""
    if not (folder / _LOG).is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        told = json.loads((folder / _LOG).read_text(encoding="utf-8"))
        tensors = load_file(folder / _TENSORS)
    except (OSError, ValueError, SafetensorError):
        return None
    return PurifyResult(edits=WholeTensors(tensors), chosen=told["chosen"], log=told["log"])


def tidy(folder: Path) -> None:
    """Remove empty folders, so that a run that kept nothing leaves nothing."""
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_json(path: Path, value: Any) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return [
        (entry.path, entry.size_bytes, (folder / entry.path).stat().st_mtime_ns) for entry in list_folder(str(folder))
    ]
