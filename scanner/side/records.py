"""What the files around the weights say: facts, bounded in number and length, never rendered and never executed.

Texts come from strangers and stay verbatim here; whoever shows them escapes them.
"""

from dataclasses import dataclass
from typing import Literal

from scanner.records import Skip

Difference = Literal["same", "whitespace", "changed", "added"]
"""Candidate against base: equal, equal but for white space, different, or without a counterpart."""
GuardKind = Literal["content", "date", "position", "role", "option"]
ReachKind = Literal["underscore", "import", "global", "random", "call"]
Step = Literal["normalizer", "pre_tokenizer", "post_processor", "decoder", "merges", "scores", "vocabulary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A condition of a template: on what it depends, and the words it looks for.

    ``content`` is what a message says, ``date`` the clock, ``position`` a turn counted from the start, ``role`` who
    speaks, ``option`` everything else (``needles`` are then the names it tests). ``negated`` is true for the branch
    taken when the condition does not hold.
    """

    kind: GuardKind
    needles: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """Literal text that a template writes, and the conditions around it, outermost first.

    ``repeated`` is true inside a loop: the text is then written more than once.
    """

    text: str
    guards: tuple[Guard, ...] = ()
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Something a template uses that formatting a conversation does not need."""

    kind: ReachKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One chat template: the file in which it stands, its name there, its text."""

    file: str
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """One chat template of the candidate, and what it has that no template of the base has.

    ``emissions`` are new literal texts, ``conditions`` new tests of a message's content or of the clock, ``reaches``
    new uses of what formatting does not need, ``hidden`` new characters that do not show (as ``U+200B``). ``problem``
    says why a template could not be read, as the tail of a sentence about it.
    """

    file: str
    name: str
    state: Difference
    emissions: tuple[Emission, ...] = ()
    conditions: tuple[Guard, ...] = ()
    reaches: tuple[Reach, ...] = ()
    hidden: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reassigned:
    """A token id that stood for one text in the base and stands for another now; "" for none."""

    id: int
    base: str
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEntry:
    """A token that the base's vocabulary does not have. ``control`` is true when it looks like a control token."""

    id: int
    text: str
    special: bool
    control: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """A step of the tokenizer that differs: what was there, what is there now.

    ``words`` are the texts of the new step's rules that hold letters (a rule that rewrites or removes words, an
    ordinary token put before every input), empty for technical changes.
    """

    step: Step
    base: str
    candidate: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """The candidate's tokenizer against the base's.

    ``reassigned`` shows some of the ``reassigned_count`` ids below ``compared`` whose text differs; ``added`` some of
    the ``added_count`` new tokens.
    """

    file: str
    state: Difference
    compared: int = 0
    reassigned_count: int = 0
    reassigned: tuple[Reassigned, ...] = ()
    added_count: int = 0
    added: tuple[AddedEntry, ...] = ()
    steps: tuple[StepChange, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """One key of a configuration file whose value differs; values as JSON text, bounded, None where there is none.

    ``ids`` are the whole numbers in the new value that the old one has not; ``words`` its strings likewise. Both are
    bounded.
    """

    file: str
    key: str
    base: str | None
    candidate: str | None
    ids: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoMap:
    """A configuration that names code to load. ``repo`` is where from when it is another repository."""

    file: str
    name: str
    target: str
    repo: str | None
    inherited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFile:
    """A Python file.

    ``acts`` are the calls and imports in it that can act on the computer; ``inherited`` files are the base's, byte for
    byte, and were not read.
    """

    path: str
    inherited: bool
    acts: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A file that a computer could run, or an archive. ``members`` are runnable files inside an archive."""

    path: str
    kind: str
    inherited: bool
    archive: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseHistory:
    """What the Hub tells of the base's repository over time; moments are ISO 8601, None when unknown.

    ``asked`` is the declared name, ``found`` the repository that answered. ``first_commit`` is the oldest commit when
    the whole history could be seen.
    """

    asked: str
    found: str
    created: str | None = None
    candidate_created: str | None = None
    first_commit: str | None = None
    squashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFacts:
    """Everything around the weights, one bundle; empty collections where nothing differs."""

    templates: tuple[TemplateFacts, ...] = ()
    tokenizer: TokenizerFacts | None = None
    values: tuple[ValueChange, ...] = ()
    auto_maps: tuple[AutoMap, ...] = ()
    code: tuple[CodeFile, ...] = ()
    programs: tuple[Program, ...] = ()
    history: BaseHistory | None = None
    skips: tuple[Skip, ...] = ()
