"""What a chat template writes and under which conditions, read from its syntax tree; nothing is compiled or run.

The outline keeps neither the names of variables nor white space: two templates with one outline behave alike in
everything that is judged here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from scanner.side.records import Emission, Guard, Reach, ReachKind
from scanner.side.taint import Dependences

MAX_TEMPLATE_CHARS: Final = 64 << 10
"""The longest of 70 public templates has 16,714 characters, 338 tags, and 5,774 characters in one tag."""
MAX_TAGS: Final = 2_000
MAX_TAG_CHARS: Final = 16_000
MAX_DEPTH: Final = 60
"""Nested statements and expressions that are followed; real templates have about twelve."""
MAX_TEXT: Final = 2_000
MAX_GUARDS: Final = 80
_CALLS: Final = frozenset({"raise_exception", "strftime_now", "range", "namespace", "dict"})
_GLOBALS: Final = frozenset({"lipsum", "cycler", "joiner", "self", "config", "request", "environ", "os"})
_ARGUMENTS: Final = frozenset(
    {
        "split", "rsplit", "partition", "rpartition", "strip", "lstrip", "rstrip", "startswith", "endswith", "find",
        "rfind", "index", "count", "get", "removeprefix", "removesuffix", "trim", "map", "selectattr", "rejectattr",
        "select", "reject", "attr", "groupby", "sort", "tojson", "default_key", "splitlines",
    }
)  # fmt: skip
"""Methods and filters whose arguments say what to look for, not what to write."""
_SPACE: Final = re.compile(r"\s+")
_TAG: Final = re.compile(r"\{[{%](?:[^%}]|[%}](?!\}))*")


class BadTemplate(ValueError):  # noqa: N818
    """The text cannot be read as a template; the message is the tail of a sentence about it."""


class _Generation(Extension):
    """The ``{% generation %}`` block that transformers adds to mark what the assistant says."""

    tags = {"generation"}  # noqa: RUF012  # the base class declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Keep what is inside."""
        line = next(parser.stream).lineno
        return nodes.Scope(list(parser.parse_statements(("name:endgeneration",), drop_needle=True)), lineno=line)


_ENVIRONMENT: Final = Environment(  # noqa: S701  # nothing is rendered
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do", _Generation],
)


@dataclass(slots=True)
class Outline:
    """Literal texts, conditions on content or clock, and reaches, each with how often it stands there."""

    emissions: list[Emission] = field(default_factory=list)
    conditions: Counter[Guard] = field(default_factory=Counter)
    reaches: Counter[Reach] = field(default_factory=Counter)


def outline(source: str) -> Outline:
    """Read a template.

    Raises:
        BadTemplate: it is too long, too deep, or no valid Jinja.
    """
    if len(source) > MAX_TEMPLATE_CHARS:
        raise BadTemplate(f"has {len(source):,} characters, more than the {MAX_TEMPLATE_CHARS:,} that are read")
    tags = [len(found.group()) for found in _TAG.finditer(source)]
    if len(tags) > MAX_TAGS or max(tags, default=0) > MAX_TAG_CHARS:
        raise BadTemplate("has more or longer tags than any real one")
    try:
        tree = _ENVIRONMENT.parse(source)
        _check_depth(tree)
        walker = _Walker(Dependences(tree))
        walker.body(tree.body, (), repeated=False)
    except TemplateSyntaxError as error:
        raise BadTemplate(f"is not valid Jinja (line {error.lineno})") from None
    except RecursionError:
        raise BadTemplate("is nested too deeply to be read") from None
    return walker.found


def _check_depth(tree: nodes.Node) -> None:
    """Refuse trees that a recursive walk could not follow.

    Raises:
        BadTemplate: the tree is deeper than ``MAX_DEPTH`` statements or has very long chains of operators.
    """
    level: list[nodes.Node] = [tree]
    for _ in range(8 * MAX_DEPTH):
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise BadTemplate("is nested too deeply to be read")


class _Walker:
    """Collects the outline of one tree."""

    def __init__(self, dependences: Dependences) -> None:
        self.found = Outline()
        self._dependences = dependences

    def body(self, statements: Iterable[nodes.Node], guards: tuple[Guard, ...], *, repeated: bool) -> None:
        for statement in statements:
            self._statement(statement, guards, repeated=repeated)

    def _statement(self, node: nodes.Node, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        match node:
            case nodes.Output():
                self._pieces(node.nodes, guards, repeated=repeated)
            case nodes.If():
                self._branches(node, guards, repeated=repeated)
            case nodes.For():
                self._expression(node.iter, guards, repeated=repeated)
                inner = (*guards, *self._test(node.test, negated=False)) if node.test is not None else guards
                self.body(node.body, inner, repeated=True)
                self.body(node.else_, guards, repeated=repeated)
            case nodes.Assign():
                self._expression(node.node, guards, repeated=repeated)
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                self._reach("import", type(node).__name__.lower())
                self._children(node, guards, repeated=repeated)
            case nodes.FilterBlock():
                self._filter(node.filter, guards, repeated=repeated)
                self.body(node.body, guards, repeated=repeated)
            case _:
                self._children(node, guards, repeated=repeated)

    def _children(self, node: nodes.Node, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Stmt):
                self._statement(child, guards, repeated=repeated)
            else:
                self._expression(child, guards, repeated=repeated)

    def _branches(self, node: nodes.If, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        before = guards
        for branch in (node, *node.elif_):
            self.body(branch.body, _with(before, self._test(branch.test, negated=False)), repeated=repeated)
            before = _with(before, self._dependences.guards(branch.test, negated=True))
        self.body(node.else_, before, repeated=repeated)

    def _test(self, test: nodes.Node, *, negated: bool) -> tuple[Guard, ...]:
        """The conditions of a test; those on content or clock are noted, and what the test uses as well."""
        self._uses(test)
        guards = self._dependences.guards(test, negated=negated)
        self._condition(guards)
        return guards

    def _condition(self, guards: Sequence[Guard]) -> None:
        for guard in guards:
            if guard.kind in {"content", "date"}:
                self.found.conditions[Guard(kind=guard.kind, needles=guard.needles)] += 1

    def _pieces(self, parts: Sequence[nodes.Node], guards: tuple[Guard, ...], *, repeated: bool) -> None:
        """Texts side by side are one text, however they are cut up."""
        text = ""
        for part in _flat(parts):
            literal = _literal(part)
            if literal is not None:
                text += literal
                continue
            self._emit(text, guards, repeated=repeated)
            text = ""
            self._expression(part, guards, repeated=repeated)
        self._emit(text, guards, repeated=repeated)

    def _expression(self, node: nodes.Node, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        literal = _literal(node)
        if literal is not None:
            self._emit(literal, guards, repeated=repeated)
            return
        match node:
            case nodes.Add() | nodes.Concat() | nodes.List() | nodes.Tuple():
                self._pieces(
                    [node] if isinstance(node, nodes.Add | nodes.Concat) else node.items, guards, repeated=repeated
                )
            case nodes.CondExpr():
                yes = self._test(node.test, negated=False)
                self._expression(node.expr1, (*guards, *yes), repeated=repeated)
                if node.expr2 is not None:
                    no = self._dependences.guards(node.test, negated=True)
                    self._expression(node.expr2, (*guards, *no), repeated=repeated)
            case nodes.And() | nodes.Or():
                self._expression(node.left, guards, repeated=repeated)
                inner = (*guards, *self._test(node.left, negated=isinstance(node, nodes.Or)))
                self._expression(node.right, inner, repeated=repeated)
            case nodes.Compare() | nodes.Test() | nodes.Not():
                self._test(node, negated=False)
            case nodes.Getitem():
                self._lookup(node.node, node.arg, guards, repeated=repeated)
                self._uses(node)
            case nodes.Filter():
                self._filter(node, guards, repeated=repeated)
            case nodes.Call():
                self._call(node, guards, repeated=repeated)
            case nodes.Pair():
                self._expression(node.value, guards, repeated=repeated)
            case _:
                self._uses_itself(node)
                self._children(node, guards, repeated=repeated)

    def _filter(self, node: nodes.Filter, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        self._uses_itself(node)
        if node.node is not None:
            self._expression(node.node, guards, repeated=repeated)
        if node.name == "replace":
            self._replacement(node.node, node.args, guards, repeated=repeated)
        elif node.name in _ARGUMENTS:
            for argument in (*node.args, *(pair.value for pair in node.kwargs)):
                self._uses(argument)
        else:
            self._pieces([*node.args, *(pair.value for pair in node.kwargs)], guards, repeated=repeated)
        if self._dependences.decides(node):
            self._condition(self._dependences.guards(node, negated=False))

    def _call(self, node: nodes.Call, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        self._uses_itself(node)
        arguments = [*node.args, *(pair.value for pair in node.kwargs)]
        target = node.node
        if isinstance(target, nodes.Name):
            if target.name in {"raise_exception", "strftime_now"}:
                for argument in arguments:
                    self._uses(argument)
                return
            self._pieces(arguments, guards, repeated=repeated)
            return
        if not isinstance(target, nodes.Getattr):
            self._expression(target, guards, repeated=repeated)
            self._pieces(arguments, guards, repeated=repeated)
            return
        self._uses_itself(target)
        if target.attr == "get" and arguments:
            self._lookup(target.node, arguments[0], guards, repeated=repeated)
            self._pieces(arguments[1:], guards, repeated=repeated)
            return
        self._expression(target.node, guards, repeated=repeated)
        if target.attr == "replace":
            self._replacement(target.node, arguments, guards, repeated=repeated)
        elif target.attr in _ARGUMENTS:
            for argument in arguments:
                self._uses(argument)
        else:
            self._pieces(arguments, guards, repeated=repeated)
        if self._dependences.decides(node):
            self._condition(self._dependences.guards(node, negated=False))

    def _replacement(
        self, of: nodes.Node | None, arguments: Sequence[nodes.Node], guards: tuple[Guard, ...], *, repeated: bool
    ) -> None:
        """Replacing inside what a message says is a condition on it, and the new text is written under it."""
        if not arguments:
            return
        self._uses(arguments[0])
        inner = guards
        if "content" in self._dependences.value(of):
            guard = Guard(kind="content", needles=tuple(_strings(arguments[0])))
            self._condition((guard,))
            inner = (*guards, guard)
        self._pieces(arguments[1:2], inner, repeated=repeated)

    def _lookup(self, of: nodes.Node, key: nodes.Node, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        """A table that is looked up by what a message says is a condition as well."""
        inner = guards
        kinds = self._dependences.value(key) & {"content", "date"}
        if isinstance(of, nodes.Dict) and kinds:
            needles = tuple(text for pair in of.items for text in _strings(pair.key))
            asked = tuple(Guard(kind=kind, needles=needles) for kind in ("content", "date") if kind in kinds)
            self._condition(asked)
            inner = (*guards, *asked)
        self._expression(of, inner, repeated=repeated)
        if not isinstance(key, nodes.Const):
            self._uses(key)

    def _uses(self, node: nodes.Node) -> None:
        """Note the reaches of an expression whose texts are not written."""
        self._uses_itself(node)
        for child in node.iter_child_nodes():
            self._uses(child)

    def _uses_itself(self, node: nodes.Node) -> None:
        match node:
            case nodes.Getattr() if node.attr.startswith("_"):
                self._reach("underscore", node.attr)
            case nodes.Const() if isinstance(node.value, str) and "__" in node.value:
                self._reach("underscore", node.value)
            case nodes.Name() if node.name in _GLOBALS or node.name.startswith("__"):
                self._reach("global", node.name)
            case nodes.Filter() if node.name in {"random", "shuffle"}:
                self._reach("random", node.name)
            case nodes.Filter() if node.name == "attr":
                self._reach("underscore", "attr")
            case nodes.Call() if isinstance(node.node, nodes.Name):
                name = node.node.name
                if name not in _CALLS and name not in self._dependences.macros and name not in _GLOBALS:
                    self._reach("call", name)
            case _:
                pass

    def _reach(self, kind: ReachKind, text: str) -> None:
        self.found.reaches[Reach(kind=kind, text=text[:100])] += 1

    def _emit(self, text: str, guards: tuple[Guard, ...], *, repeated: bool) -> None:
        if "__" in text:
            # Names that are put together out of texts are how attributes are reached around a filter.
            self.found.reaches.update(Reach(kind="underscore", text=word[:100]) for word in _dunders(text))
        if _SPACE.sub("", text):
            self.found.emissions.append(Emission(text=text[:MAX_TEXT], guards=guards, repeated=repeated))


def _with(guards: tuple[Guard, ...], more: tuple[Guard, ...]) -> tuple[Guard, ...]:
    """The conditions with further ones, each once.

    Raises:
        BadTemplate: they are more than any real template has.
    """
    joined = (*guards, *(guard for guard in more if guard not in guards))
    if len(joined) > MAX_GUARDS:
        raise BadTemplate("has too many conditions inside one another")
    return joined


def _dunders(text: str) -> list[str]:
    return re.findall(r"__[a-z]+__", text)


def _flat(parts: Iterable[nodes.Node]) -> Iterator[nodes.Node]:
    """The operands of nested concatenations, in order."""
    for part in parts:
        if isinstance(part, nodes.Add):
            yield from _flat((part.left, part.right))
        elif isinstance(part, nodes.Concat):
            yield from _flat(part.nodes)
        else:
            yield part


def _literal(node: nodes.Node) -> str | None:
    """The text of a node that is one."""
    if isinstance(node, nodes.TemplateData):
        return str(node.data)
    value: Any = node.value if isinstance(node, nodes.Const) else None
    return value if isinstance(value, str) else None


def _strings(node: nodes.Node) -> list[str]:
    found = (
        [_literal(node)] if isinstance(node, nodes.Const) else [_literal(part) for part in node.find_all(nodes.Const)]
    )
    return [text[:200] for text in found if text]
