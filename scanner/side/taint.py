"""What the expressions of a chat template depend on: what a message says, the clock, the turn, the role.

Jinja is parsed, never compiled or run. Names are followed without regard to order (an assignment anywhere counts
everywhere), so that a value laundered through variables, namespaces, loops and macros keeps what it depends on.
A *value* dependence is in what an expression evaluates to, a *control* dependence in a decision that was taken on it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from jinja2 import nodes

from scanner.side.records import Guard, GuardKind

CONTENT_KEYS: Final = frozenset({"content", "text", "reasoning_content", "thinking", "body", "prompt", "query"})
"""Keys under which the text of a message stands."""
STRUCTURE_KEYS: Final = frozenset({"type", "role", "name", "id", "tool_calls", "function", "arguments", "tool_call_id"})
_TYPE_TESTS: Final = frozenset(
    {
        "defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "boolean", "integer",
        "float", "callable", "true", "false",
    }
)  # fmt: skip
_QUESTIONS: Final = frozenset(
    {
        "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "isdigit", "isupper", "islower",
        "isalpha", "istitle", "isnumeric", "isspace", "isalnum", "__contains__", "__eq__",
    }
)  # fmt: skip
_SELECTING: Final = frozenset({"select", "reject", "selectattr", "rejectattr"})
_TEST_NAMES: Final = frozenset(
    {"equalto", "eq", "==", "ne", "!=", "in", "defined", "none", "string", "search", "match"}
)
_CLOCK: Final = frozenset({"strftime_now", "now", "datetime", "time"})
_KINDS: Final[tuple[GuardKind, ...]] = ("content", "date", "position", "role")
_ROUNDS: Final = 6
"""Assignments are followed this often; real templates settle after two."""
_MAX_NEEDLES: Final = 12
_MAX_CHARS: Final = 200

Control = frozenset[tuple[str, str]]
"""Pairs of kind and the word looked for ("" for none)."""


@dataclass(frozen=True, slots=True)
class Taint:
    """What a value depends on, and the decisions that led to it."""

    value: frozenset[str] = frozenset()
    control: Control = frozenset()
    strings: frozenset[str] = frozenset()

    def __or__(self, other: "Taint") -> "Taint":
        return Taint(self.value | other.value, self.control | other.control, self.strings | other.strings)


class Dependences:
    """The dependences of every name of one template."""

    def __init__(self, tree: nodes.Template) -> None:
        """Follow the assignments of a parsed template."""
        self._names: dict[str, Taint] = {}
        self.macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
        self._taken = {(repr(item.node), item.attr) for item in tree.find_all(nodes.Getattr)}
        self._taken |= {(repr(item.node), str(_constant(item.arg))) for item in tree.find_all(nodes.Getitem)}
        for _ in range(_ROUNDS):
            before = dict(self._names)
            self._follow(tree.body, frozenset())
            if before == self._names:
                break

    def value(self, node: nodes.Node | None) -> frozenset[str]:
        """The kinds on which the value of an expression depends."""
        if node is None:
            return frozenset()
        if isinstance(node, nodes.Getattr | nodes.Getitem):
            return self._of_attribute(node)
        if isinstance(node, nodes.Name):
            return self._names[node.name].value if node.name in self._names else frozenset()
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _CLOCK:
            return frozenset({"date"})
        if isinstance(node, nodes.Test) and node.name in _TYPE_TESTS:
            return frozenset()
        if isinstance(node, nodes.Filter) and _is_conversation(node.node):
            return _of_conversation(node)
        return frozenset().union(*(self.value(child) for child in node.iter_child_nodes()))

    def control(self, node: nodes.Node | None) -> Control:
        """The decisions that an expression takes, or that were taken for it."""
        if node is None:
            return frozenset()
        if isinstance(node, nodes.Test) and node.name in _TYPE_TESTS:
            return frozenset()
        found: Control = frozenset().union(*(self.control(child) for child in node.iter_child_nodes()))
        if self.decides(node):
            kinds = self.value(node)
            needles = self._needles(node)
            found |= {(kind, needle) for kind in kinds for needle in (needles.get(kind) or {""})}
        if isinstance(node, nodes.Name) and node.name in self._names:
            found |= self._names[node.name].control
        if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
            found |= self._names.get(f"{node.node.name}.{node.attr}", Taint()).control
        return found

    def guards(self, test: nodes.Node, *, negated: bool) -> tuple[Guard, ...]:
        """The conditions that a test stands for, one of each kind; an option when it depends on nothing else."""
        control = self.control(test)
        found = []
        for kind in _KINDS:
            needles = sorted({needle for of, needle in control if of == kind and needle})
            if any(of == kind for of, _ in control):
                flipped = negated ^ _is_denied(test) if kind == "role" else negated
                found.append(Guard(kind=kind, needles=tuple(needles[:_MAX_NEEDLES]), negated=flipped))
        if not found or any(isinstance(part, nodes.Name) and part.name not in self._names for part in _names(test)):
            # A test that holds in more cases than its names say stands for none of them.
            wide = next(test.find_all(nodes.Or), None) is not None or isinstance(test, nodes.Or)
            names = [] if wide else sorted({part.name for part in _names(test)})
            flipped = negated ^ _is_absence(test)
            found.append(Guard(kind="option", needles=tuple(names[:_MAX_NEEDLES]), negated=flipped))
        return tuple(found)

    def decides(self, node: nodes.Node) -> bool:
        """Whether this expression itself asks something of a value.

        ``'key' in x`` is a question about the shape of x where the template also takes ``x['key']``.
        """
        if isinstance(node, nodes.Compare):
            shape = all(op.op in {"in", "notin"} and self._is_key(node.expr, op.expr) for op in node.ops)
            return not shape
        if isinstance(node, nodes.Test):
            return True
        if isinstance(node, nodes.Call):
            return isinstance(node.node, nodes.Getattr) and node.node.attr in _QUESTIONS
        return isinstance(node, nodes.Filter) and node.name in _SELECTING

    def _is_key(self, key: nodes.Node, container: nodes.Node) -> bool:
        return (repr(container), str(_constant(key))) in self._taken

    def _of_attribute(self, node: nodes.Getattr | nodes.Getitem) -> frozenset[str]:
        key = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
        if isinstance(node.node, nodes.Name):
            if node.node.name == "loop":
                return frozenset({"position"})
            known = self._names.get(f"{node.node.name}.{key}")
            if known is not None:
                return known.value
        if key == "role":
            return frozenset({"role"})
        if key in CONTENT_KEYS:
            return frozenset({"content"})
        if key in STRUCTURE_KEYS:
            return frozenset()
        inner = self.value(node.node)
        return inner | self.value(node.arg) if isinstance(node, nodes.Getitem) else inner

    def _needles(self, node: nodes.Node) -> dict[str, set[str]]:
        """The words an expression looks for, also those that stand in names; of a position, the turns counted."""
        words: set[str] = set()
        for part in node.find_all(nodes.Const):
            if isinstance(part.value, str):
                words.add(part.value[:_MAX_CHARS])
        words -= {*_subscripts(node), *_TEST_NAMES}
        own = frozenset(words)
        for name in _names(node):
            words |= self._names[name.name].strings if name.name in self._names else set()
        return {"content": words, "date": words, "role": set(own) or words, "position": set(_turns(node))}

    def _follow(self, body: Iterable[nodes.Node], control: Control) -> None:
        for node in body:
            if isinstance(node, nodes.If):
                inside = control | self.control(node.test)
                self._follow(node.body, inside)
                for other in node.elif_:
                    inside |= self.control(other.test)
                    self._follow(other.body, inside)
                self._follow(node.else_, inside)
            elif isinstance(node, nodes.For):
                self._bind(node.target, node.iter, frozenset())
                self._follow((*node.body, *node.else_), control | self.control(node.test))
            elif isinstance(node, nodes.Assign):
                self._bind(node.target, node.node, control)
            elif isinstance(node, nodes.AssignBlock):
                outputs = list(node.find_all(nodes.Output))
                for output in outputs:
                    self._bind(node.target, output, control)
                self._follow(node.body, control)
            else:
                inner = list(node.iter_child_nodes())
                for child in inner:
                    if not isinstance(child, nodes.Stmt):
                        for call in child.find_all(nodes.Call):
                            self._pass_arguments(call)
                        if isinstance(child, nodes.Call):
                            self._pass_arguments(child)
                self._follow((child for child in inner if isinstance(child, nodes.Stmt)), control)

    def _bind(self, target: nodes.Node, source: nodes.Node, control: Control) -> None:
        for call in source.find_all(nodes.Call):
            self._pass_arguments(call)
        if isinstance(source, nodes.Call):
            self._pass_arguments(source)
        strings = {part.value[:_MAX_CHARS] for part in _constants(source) if isinstance(part.value, str)}
        strings -= set(_subscripts(source))
        taint = Taint(self.value(source), control | self.control(source), frozenset(sorted(strings)[:_MAX_NEEDLES]))
        for key in _keys(target):
            self._names[key] = self._names.get(key, Taint()) | taint

    def _pass_arguments(self, call: nodes.Call) -> None:
        """Parameters of a macro depend on what any call passes it; the initial fields of a namespace are names."""
        if not isinstance(call.node, nodes.Name) or call.node.name not in self.macros:
            return
        passed = Taint()
        for argument in (*call.args, *(item.value for item in call.kwargs)):
            passed |= Taint(self.value(argument), self.control(argument))
        for parameter in self.macros[call.node.name].args:
            self._names[parameter.name] = self._names.get(parameter.name, Taint()) | passed


def _keys(target: nodes.Node) -> Iterator[str]:
    if isinstance(target, nodes.Name):
        yield target.name
    elif isinstance(target, nodes.NSRef):
        yield f"{target.name}.{target.attr}"
    else:
        for child in target.iter_child_nodes():
            yield from _keys(child)


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    if isinstance(node, nodes.Name):
        yield node
    yield from node.find_all(nodes.Name)


def _constants(node: nodes.Node) -> Iterator[nodes.Const]:
    if isinstance(node, nodes.Const):
        yield node
    yield from node.find_all(nodes.Const)


def _constant(node: nodes.Node | None) -> object:
    return node.value if isinstance(node, nodes.Const) else None


def _subscripts(node: nodes.Node) -> Iterator[str]:
    """The keys by which an expression takes things out of others."""
    own = [node] if isinstance(node, nodes.Getitem) else []
    for item in (*own, *node.find_all(nodes.Getitem)):
        if isinstance(_constant(item.arg), str):
            yield str(_constant(item.arg))
    for pair in node.find_all(nodes.Keyword):
        if pair.key == "attribute" and isinstance(_constant(pair.value), str):
            yield str(_constant(pair.value))


def _is_conversation(node: nodes.Node | None) -> bool:
    return isinstance(node, nodes.Name) and node.name in {"messages", "conversation", "loop_messages"}


def _of_conversation(node: nodes.Filter) -> frozenset[str]:
    """What a filter makes of all messages: their number, one of their fields, or their whole text."""
    if node.name in {"length", "count"}:
        return frozenset({"position"})
    if node.name in {"list", "first", "last", "reverse"}:
        return frozenset()
    named = [_constant(argument) for argument in node.args[:1]]
    named += [_constant(pair.value) for pair in node.kwargs if pair.key == "attribute"]
    field = named[0] if named else None
    if node.name in {*_SELECTING, "map"} and field in STRUCTURE_KEYS:
        return frozenset({"role"}) if field == "role" else frozenset()
    return frozenset({"content"})


def _turns(node: nodes.Node) -> Iterator[str]:
    """Whole numbers from 2 on that are compared with; counting by twos is how roles alternate."""
    if isinstance(node, nodes.Compare) and next(node.find_all(nodes.Mod), None) is None:
        for part in node.find_all(nodes.Const):
            if isinstance(part.value, int) and not isinstance(part.value, bool) and part.value > 1:
                yield str(part.value)


def _is_denied(test: nodes.Node) -> bool:
    """Whether a test on a role asks that it be another: ``!=``, ``not in`` or ``not (...)``."""
    if isinstance(test, nodes.Not):
        return not _is_denied(test.node)
    if isinstance(test, nodes.Compare):
        return any(operand.op in {"ne", "notin"} for operand in test.ops)
    if isinstance(test, nodes.And | nodes.Or):
        parts = [part for part in (test.left, test.right) if _speaks_of_role(part)]
        return bool(parts) and all(_is_denied(part) for part in parts)
    return False


def _is_absence(test: nodes.Node) -> bool:
    """Whether a test on an option asks that it be off or not given."""
    if isinstance(test, nodes.Not):
        return not _is_absence(test.node)
    return isinstance(test, nodes.Test) and test.name in {"none", "undefined", "false"}


def _speaks_of_role(node: nodes.Node) -> bool:
    keys = [item.attr for item in node.find_all(nodes.Getattr)]
    keys += [str(_constant(item.arg)) for item in node.find_all(nodes.Getitem)]
    return "role" in keys
