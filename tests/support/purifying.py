"""Pico models to purify: an honest fine-tune, edits planted in it, and a scan of each by the front door."""

import copy
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pico
import torch
from transformers import PreTrainedModel

from audit.records import AuditReport
from pipelines.audit_repo import audit_repo
from pipelines.purify.job import PurifyJob
from scanner.hub import Hub

LAYERS = 6
ROW = 137


@cache
def _made() -> tuple[Path, Path]:
    """The folders of a base and its honest fine-tune, made once a process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pico.family(Path(mkdtemp(prefix="purifying-")), "bert", layers=LAYERS)
    finally:
        torch.set_num_threads(threads)


def family(root: Path) -> tuple[Path, Path]:
    """Copies of base and honest fine-tune below ``root``."""
    base, honest = _made()
    return (
        Path(shutil.copytree(base, root / "base", dirs_exist_ok=True)),
        Path(shutil.copytree(honest, root / "honest", dirs_exist_ok=True)),
    )


def edited(root: Path, plant: Callable[[PreTrainedModel], Any], **saving: Any) -> Path:
    """A copy of the honest fine-tune with an edit, as ``root/edited``."""
    model = copy.deepcopy(pico.load(_made()[1]))
    plant(model)
    return pico.save(model, root / "edited", base_model="pico/base", **saving)


def scan(candidate: Path, base: Path) -> AuditReport:
    """The report of the front door."""
    return audit_repo(str(candidate), hub=Hub(), base=str(base), threads=1, salt=1).report


def job(candidate: Path, base: Path, work: Path, **more: Any) -> PurifyJob:
    """A job with the scan of the candidate."""
    kind: Any = more.pop("kind", "classifier")
    return PurifyJob(candidate=candidate, base=base, kind=kind, work=work, report=scan(candidate, base), **more)
