"""A temporary folder with what a model needs to be run, and nothing else of its repository.

Loaders of models look around: for code, pickles, templates, adapters, other folders. Here they find configuration,
tokenizer and safetensors weights alone, linked from a local folder or downloaded.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from scanner.errors import CouldNotConclude
from scanner.hub import Hub
from scanner.records import FileEntry, RepoFacts
from scanner.weights.layout import SUFFIX, find_layout

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
MAX_TOKENIZER_BYTES: Final = 64 << 20
"""Of one tokenizer file; the largest in use have about 34 MB."""
PIECE_BYTES: Final = 16 << 20
_NOT_NEEDED: Final = ("auto_map", "custom_pipelines", "chat_template", "transformers_weights", "_name_or_path")
"""Keys that send loaders elsewhere: to code, to templates, to other files, to other repositories."""

Advance = Callable[[int, int], None]


class CannotProbe(CouldNotConclude):
    """This model cannot be run, or not within the limits; the message is a clause that says why."""


@contextmanager
def staged(facts: RepoFacts, hub: Hub | None, *, limit_bytes: int, progress: Advance | None = None) -> Iterator[Path]:
    """Yield a folder with the model's configuration, tokenizer and weights; it is gone afterwards.

    Args:
        facts: of the pinned repository or the folder.
        hub: the reader; may be None for folders.
        limit_bytes: of the weights together.
        progress: hears the downloaded and the expected bytes.

    Raises:
        CannotProbe: no plain safetensors weights of a whole model, or more than ``limit_bytes`` of them.
        HubAuditError: a file cannot be read.
    """
    hub = hub or Hub()  # folders need no network: the reader makes no request until it is asked for one
    _refuse_by_config(facts)
    layout = find_layout(facts, lambda path, limit: hub.read_bytes(facts.ref, path, limit_bytes=limit))
    if any(not entry.path.endswith(SUFFIX) for entry in layout.files):
        raise CannotProbe("its weights are not in safetensors files")
    total = sum(entry.size_bytes for entry in layout.files)
    if total > limit_bytes:
        raise CannotProbe(f"its weights have {total / 1e6:,.0f} MB; up to {limit_bytes / 1e6:,.0f} MB are run")
    with tempfile.TemporaryDirectory(prefix="hubaudit-probe-") as name:
        target = Path(name)
        _write_json(target / "config.json", facts.config or {})
        _stage_tokenizer(facts, hub, target)
        names = _weight_names(layout.files)
        if len(names) > 1:
            weight_map = {tensor: names[shard] for tensor, shard in layout.shard_of.items() if shard in names}
            _write_json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
        done = 0
        for path, staged_name in names.items():
            if facts.ref.path is not None:
                (target / staged_name).symlink_to(Path(facts.ref.path, path).resolve())
            else:
                done = _download(facts, hub, path, target / staged_name, done, total, progress)
        yield target


def _refuse_by_config(facts: RepoFacts) -> None:
    if not facts.config:
        raise CannotProbe("it has no config.json that can be read")
    if facts.adapter_config is not None:
        raise CannotProbe("it is an adapter, and adapters are not run yet")
    if facts.config.get("quantization_config") is not None:
        raise CannotProbe("its weights are stored in a quantiser's codes, and such models are not run yet")


def _weight_names(files: tuple[FileEntry, ...]) -> dict[str, str]:
    """Path in the repository → the name under which the loader looks for it."""
    if len(files) == 1:
        return {files[0].path: "model.safetensors"}
    count = len(files)
    return {entry.path: f"model-{number:05d}-of-{count:05d}.safetensors" for number, entry in enumerate(files, 1)}


def _stage_tokenizer(facts: RepoFacts, hub: Hub, target: Path) -> None:
    for path in TOKENIZER_FILES:
        if facts.file(path) is None:
            continue
        content = hub.read_bytes(facts.ref, path, limit_bytes=MAX_TOKENIZER_BYTES)
        if path == "tokenizer_config.json":
            try:
                settings = json.loads(content)
            except (ValueError, RecursionError):
                raise CannotProbe("its tokenizer_config.json is not valid JSON") from None
            if not isinstance(settings, dict):
                raise CannotProbe("its tokenizer_config.json is not a JSON object")
            _write_json(target / path, settings)
        else:
            (target / path).write_bytes(content)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    kept = {key: value for key, value in content.items() if key not in _NOT_NEEDED}
    path.write_text(json.dumps(kept), encoding="utf-8")


def _download(
    facts: RepoFacts, hub: Hub, path: str, place: Path, done: int, total: int, progress: Advance | None
) -> int:
    """Fetch one file in pieces and return the bytes done so far."""
    remote = hub.locate(facts.ref, path)
    with place.open("wb") as file:
        for start in range(0, remote.size_bytes, PIECE_BYTES):
            piece = hub.read_range(remote, start, min(start + PIECE_BYTES, remote.size_bytes))
            file.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
    return done
