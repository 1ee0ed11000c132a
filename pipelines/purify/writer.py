"""Writes the purified model as a new folder, and puts the original back from it.

The new folder has the same files, shards, headers and metadata as the candidate; only the bytes of changed dimensions
differ, and the patch holds what they were. It is made under another name beside its place and moved there when it is
complete, so that nobody ever sees half a model. Nothing is ever changed in place.
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

from pipelines.progress import Progress
from pipelines.purify.checkpoint import Checkpoint, panels_of, span_of, tensor_of
from pipelines.purify.figures import FIGURE_FILE
from pipelines.purify.job import Edits, PurifyFailed
from pipelines.purify.patch import PATCH_FILE, PatchWriter, changed_by_tensor, read_patch, undo
from pipelines.purify.rewriting import Hashes, Span, file_digest, rewrite
from scanner.errors import BadReference, CouldNotConclude
from scanner.folder import list_folder
from scanner.paths import is_plain_path, shown
from scanner.records import Rows, TensorMeta
from scanner.weights.layout import OTHER_FORMATS

if TYPE_CHECKING:
    import torch

LOG_FILE: Final = "purification.json"
SPARE_BYTES: Final = 64 << 20
_WEIGHT_SUFFIXES: Final = (*OTHER_FORMATS, ".safetensors")
_OWN: Final = frozenset({LOG_FILE, PATCH_FILE, FIGURE_FILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: hashes by file, changed dimensions by tensor, and the files that were not taken along."""

    files: Mapping[str, Hashes]
    changed: Mapping[str, int]
    left_out: Mapping[str, str]


def check_output(output: Path, *sources: Path) -> None:
    """Refuse a place where the new folder must not be written.

    Raises:
        BadReference: it exists and is not an empty folder, its parent does not exist, or it lies in a source.
    """
    place = output.resolve()
    for source in sources:
        if place == source.resolve() or source.resolve() in place.parents:
            raise BadReference(f"{output} lies in the model's own folder; purification never works in place.")
    if output.is_symlink() or (output.exists() and not (output.is_dir() and not any(output.iterdir()))):
        raise BadReference(f"{output} exists already; name a new folder with --output.")
    if not place.parent.is_dir():
        raise BadReference(f"The folder {output.parent} does not exist; make it first.")


@contextmanager
def unfinished(output: Path, suffix: str = "part") -> Iterator[Path]:
    """Give a new folder beside ``output`` to fill; move it there at the end, or remove it when anything goes wrong.

    Raises:
        CouldNotConclude: the disk is full or the place cannot be written.
    """
    part = output.resolve().parent / f".{output.name}.{suffix}"
    shutil.rmtree(part, ignore_errors=True)  # left by a run that was killed
    with _full_disk_in_words(output):
        try:
            part.mkdir()
            yield part
            if output.is_dir():
                output.rmdir()  # empty, or this refuses
            part.rename(output)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


@contextmanager
def _full_disk_in_words(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise CouldNotConclude(
                f"The disk is full, so {output} was not written and nothing of it was left behind; free some space "
                "and run the same command again."
            ) from error
        raise


def write_model(
    checkpoint: Checkpoint, edits: Edits, folder: Path, progress: Progress, *, with_patch: bool = True
) -> Written:
    """Write the candidate with the edits applied into an existing empty folder.

    Args:
        checkpoint: the candidate.
        edits: what changes.
        folder: where to write.
        progress: hears the bytes of weights.
        with_patch: also write the reversible patch.

    Raises:
        PurifyFailed: an edit names an unknown tensor, or changes a shape or dtype.
        CouldNotConclude: a file cannot be read, or there is not enough room.
    """
    unknown = edits.names - checkpoint.table.keys()
    if unknown:
        raise PurifyFailed(f"The method changed {shown(min(unknown))}, which the checkpoint does not hold.")
    listed = [entry for entry in checkpoint.facts.files if is_plain_path(entry.path)]
    total = sum(entry.size_bytes for entry in listed if entry.path in checkpoint.files)
    need_room(folder, total + sum(entry.size_bytes for entry in listed if not is_weights(entry.path)))
    files: dict[str, Hashes] = {}
    left_out: dict[str, str] = {}
    done = 0
    progress.stage("writing the new model")
    with TemporaryFile(dir=folder) as spool:
        patch = PatchWriter(spool)
        for entry in listed:
            source, target = checkpoint.folder / entry.path, folder / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.path in checkpoint.files:
                spans = _spans(checkpoint, entry.path, edits, patch)
                files[entry.path] = rewrite(source, target, spans, _teller(progress, done, total))
                done += entry.size_bytes
            elif is_weights(entry.path) or entry.path in _OWN:
                left_out[entry.path] = file_digest(source)
            else:
                files[entry.path] = rewrite(source, target)
        if with_patch:
            patch.finish(folder / PATCH_FILE, files, left_out)
    for empty in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(empty.iterdir()):
            empty.rmdir()
    return Written(files=files, changed=changed_by_tensor(patch.entries), left_out=left_out)


def revert(folder: Path, output: Path, progress: Progress) -> tuple[str, ...]:
    """Write the original of a purified folder to a new folder, every file verified by its hash.

    Returns:
        the files of the original that cannot be put back, because they were never taken along.

    Raises:
        CouldNotConclude: the folder holds no patch, was changed since, or the patch is damaged.
        BadReference: ``output`` cannot be used.
    """
    check_output(output, folder)
    if not (folder / PATCH_FILE).is_file():
        raise CouldNotConclude(f"{folder} holds no {PATCH_FILE}; give a folder that `hubaudit purify` wrote.")
    patch = read_patch(folder / PATCH_FILE)
    present = {entry.path: entry.size_bytes for entry in list_folder(str(folder))}
    missing = sorted(patch.files.keys() - present.keys())
    if missing:
        raise CouldNotConclude(f"{folder} has lost the file {shown(missing[0])}; take a complete copy of it.")
    need_room(output.resolve().parent, sum(present[path] for path in patch.files))
    total, done = sum(present[path] for path in patch.files), 0
    progress.stage("putting the original back")
    with unfinished(output) as part, (folder / PATCH_FILE).open("rb") as held:
        for path, expected in patch.files.items():
            target = part / path
            target.parent.mkdir(parents=True, exist_ok=True)
            spans = [Span(e.start, e.end, partial(undo, held, patch, e)) for e in patch.entries.get(path, ())]
            found = rewrite(folder / path, target, spans, _teller(progress, done, total))
            done += present[path]
            if found.before != expected.after:
                raise CouldNotConclude(f"{shown(path)} was changed after it was purified, so it cannot be reverted.")
            if found.after != expected.before:
                raise CouldNotConclude(f"The patch does not lead back to the original {shown(path)}; it is damaged.")
    return tuple(sorted(patch.left_out))


def is_weights(path: str) -> bool:
    """Whether a file holds weights or training state in any format, going by its name."""
    name = path.lower()
    return name.endswith(_WEIGHT_SUFFIXES)


def need_room(folder: Path, n_bytes: int) -> None:
    """Check that a disk has room before hours of work end on a full one.

    Raises:
        CouldNotConclude: there is not.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes + SPARE_BYTES:
        raise CouldNotConclude(
            f"{n_bytes / 1e9:.1f} GB are needed in {folder} and {free / 1e9:.1f} GB are free; make room, or choose "
            "another --output."
        )


def _spans(checkpoint: Checkpoint, file: str, edits: Edits, patch: PatchWriter) -> Iterator[Span]:
    """The panels of one file's edited tensors, in file order."""
    metas = [meta for meta in checkpoint.table.values() if meta.file == file and meta.name in edits.names]
    for meta in sorted(metas, key=lambda each: each.start):
        for rows in panels_of(meta):
            start, end = span_of(meta, rows)
            if end > start:
                yield Span(start, end, partial(_edited, meta, rows, start, edits, patch))


def _edited(
    meta: TensorMeta, rows: Rows, start: int, edits: Edits, patch: PatchWriter, before: bytearray
) -> bytes | memoryview:
    stored = tensor_of(bytearray(before), meta, rows)
    new = edits.panel(meta.name, rows, stored)
    if new.dtype != stored.dtype or new.shape != stored.shape:
        raise PurifyFailed(
            f"The method made {meta.name} {tuple(new.shape)} {new.dtype} of {tuple(stored.shape)} {stored.dtype}."
        )
    after = _bytes_of(new)
    patch.add(meta, rows, start, before, after)
    return after


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    raw: Any = flat.numpy()
    return memoryview(raw)


def _teller(progress: Progress, done: int, total: int) -> Callable[[int], None]:
    return lambda here: progress.advance(done + here, total)
