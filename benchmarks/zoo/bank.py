"""The bank on disk: one folder a model, complete or absent, never half."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "recipe.json"


@dataclass(frozen=True, slots=True)
class Bank:
    """The models of one tier below ``root`` (for instance ``build/zoo/real``)."""

    root: Path

    def has(self, model_id: str) -> bool:
        """Whether that model is complete."""
        return (self.root / model_id / RECORD).exists()

    def folder(self, model_id: str) -> Path:
        """Where that model lies."""
        return self.root / model_id

    def record(self, model_id: str) -> dict[str, Any]:
        """The model's ``recipe.json``."""
        record: dict[str, Any] = json.loads((self.root / model_id / RECORD).read_text(encoding="utf-8"))
        return record

    def ids(self, kind: str = "") -> list[str]:
        """The complete models of a kind (all without one), sorted."""
        if not self.root.exists():
            return []
        return sorted(p.parent.name for p in self.root.glob(f"{kind}*/{RECORD}") if not p.parent.name.startswith("."))

    @contextmanager
    def adding(self, model_id: str) -> Iterator[Path]:
        """A temporary folder that becomes the model's own when the block ends without an error."""
        folder = self.root / f".making-{model_id}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
            folder.rename(self.root / model_id)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
