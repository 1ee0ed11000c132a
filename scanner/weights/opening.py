"""Open the weights of a repository, whatever their format and wherever they lie."""

from scanner.errors import CorruptWeights
from scanner.folder import read_file
from scanner.hub import Hub
from scanner.records import RepoFacts
from scanner.weights.gguf_files import SUFFIX as GGUF_SUFFIX
from scanner.weights.layout import Layout, find_layout
from scanner.weights.quantised import dequantised
from scanner.weights.ranges import GAP_BYTES
from scanner.weights.safetensors import LocalSafetensors, RemoteSafetensors
from scanner.weights.source import WeightSource


def open_source(facts: RepoFacts, hub: Hub | None, *, gap_bytes: int = GAP_BYTES) -> WeightSource:
    """Choose the weight files and read their headers; no tensor is read yet.

    Args:
        facts: of the pinned repository or the folder; its listing decides which files there are.
        hub: the reader; may be None for folders.
        gap_bytes: unwanted bytes between two remote ranges that are worth one request less.

    Raises:
        NothingToCompare: there are no weights.
        CorruptWeights: a header or an index lies.
        CouldNotConclude: the weights cannot be read, or only formats that are not read yet are there.
    """
    try:
        return _open(facts, hub, gap_bytes)
    except CorruptWeights as error:
        raise CorruptWeights(f"{facts.ref.name}: {error}") from error  # else nobody knew which side of a pair it is


def _open(facts: RepoFacts, hub: Hub | None, gap_bytes: int) -> WeightSource:
    folder = facts.ref.path
    if folder is not None:
        layout = find_layout(facts, lambda path, limit: read_file(folder, path, limit_bytes=limit))
        return _open_gguf(facts, layout, None) or dequantised(LocalSafetensors(facts.ref, layout), facts.config)
    if hub is None:
        raise ValueError(f"{facts.ref} lies on the Hub and cannot be read without a Hub")
    layout = find_layout(facts, lambda path, limit: hub.read_bytes(facts.ref, path, limit_bytes=limit))
    return _open_gguf(facts, layout, hub) or dequantised(
        RemoteSafetensors(facts.ref, layout, hub, gap_bytes=gap_bytes), facts.config
    )


def _open_gguf(facts: RepoFacts, layout: Layout, hub: Hub | None) -> WeightSource | None:
    """The source when the chosen files are GGUF; None otherwise."""
    if not layout.files[0].path.endswith(GGUF_SUFFIX):
        return None
    from scanner.weights.gguf import open_gguf  # noqa: PLC0415  # the gguf package costs a third of a second

    return open_gguf(facts.ref, layout, hub)


def named_as(source: WeightSource, other: WeightSource) -> WeightSource:
    """Return a source under the names of the checkpoint that it is compared with, where its format has its own names.

    A few rows of both sides may be read. Closing the result closes ``source``.
    """
    if not any(meta.file.endswith(GGUF_SUFFIX) for meta in source.table.values()):
        return source
    if any(meta.file.endswith(GGUF_SUFFIX) for meta in other.table.values()):
        return source
    from scanner.weights import gguf, gguf_names  # noqa: PLC0415  # as above

    return gguf_names.named_as(source, other) if isinstance(source, gguf.GgufSource) else source
