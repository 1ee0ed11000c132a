"""What a card is held against beside the small files: the checkpoint's table, published scores, declared datasets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Existence = Literal["found", "gated", "missing", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The checkpoint as its headers describe it.

    ``parameters`` counts elements. ``dtypes`` maps safetensors names to elements (of quantised tensors: what their
    codes decode to), ``schemes`` names the quantisers with the elements under each. ``token_rows`` is the longest
    table of token rows, as (name, rows). For an adapter, ``ranks`` are the inner dimensions of its factors, ascending,
    and ``targets`` the last names of the modules that have factors.
    """

    parameters: int
    dtypes: Mapping[str, int] = field(default_factory=dict)
    schemes: Mapping[str, int] = field(default_factory=dict)
    token_rows: tuple[str, int] | None = None
    adapter: bool = False
    ranks: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """One entry: the benchmark (``dataset`` and its ``task``, "" when it names none), the value, and the file.

    ``value`` is None when the entry has none that is a finite number.
    """

    dataset: str
    task: str
    value: float | None
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenceFile:
    """A licence file, and the Hub's name of the licence with whose title it begins; None when that is not known."""

    path: str
    licence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A model further up the declared line of descent than the base, or a further parent, and its declared licences."""

    name: str
    licences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardContext:
    """Facts about the candidate that card checks need and no other part of the evidence holds.

    ``stored`` is None when no table was read. ``datasets`` maps the declared names that were looked up to what the Hub
    said; ``missing`` means that it does not exist or is private, ``unknown`` that it could not be asked. It is empty
    when nothing was looked up. ``weights_asked`` is false when only the card was asked about. ``ancestors`` are the
    models above the base, nearest first, then further parents of a merge, as declared; ``licence_files`` are the
    candidate's own.
    """

    stored: Stored | None = None
    scores: tuple[PublishedScore, ...] = ()
    datasets: Mapping[str, Existence] = field(default_factory=dict)
    weights_asked: bool = True
    ancestors: tuple[Ancestor, ...] = ()
    licence_files: tuple[LicenceFile, ...] = ()
