"""Code that comes with a model: what configurations name it, and what it could do. Parsed at most, never imported."""

import ast
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

from scanner.errors import HubAuditError
from scanner.records import RepoFacts, Skip
from scanner.side.reading import TextReader, inherited, read_object
from scanner.side.records import AutoMap, CodeFile

CONFIGS: Final = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files beside config.json whose ``auto_map`` names code."""
MAX_FILES: Final = 12
"""Python files that are read; further ones are a skip."""
MAX_SOURCE_BYTES: Final = 1 << 20
MAX_ACTS: Final = 20
MAX_NAMES: Final = 200
_ACTING_MODULES: Final = frozenset(
    {
        "subprocess", "socket", "ctypes", "requests", "urllib", "http", "httpx", "aiohttp", "ftplib", "smtplib",
        "telnetlib", "paramiko", "pty", "winreg", "marshal", "webbrowser", "cffi", "win32api", "pynput", "keyring",
        "urllib3", "runpy",
    }
)  # fmt: skip
_HARMLESS: Final = frozenset({"urllib.parse", "http.HTTPStatus"})
_ACTING_CALLS: Final = frozenset(
    {
        "exec", "eval", "__import__", "os.system", "os.popen", "os.remove", "os.unlink", "os.kill", "os.startfile",
        "os.putenv", "shutil.rmtree", "base64.b64decode", "base64.b85decode", "zlib.decompress", "sys.settrace",
        "os.execv", "os.execve", "os.spawnl", "os.spawnv", "os.posix_spawn", "os.fork", "codecs.decode",
    }
)  # fmt: skip
"""Calls by their full name, imports resolved; what weights and layers need is not among them."""


def find_auto_maps(
    candidate: RepoFacts, base: RepoFacts | None, reader: TextReader, skips: list[Skip]
) -> tuple[AutoMap, ...]:
    """List every ``auto_map`` entry and ``custom_pipelines`` of the candidate's configurations."""
    found: list[AutoMap] = []
    named = [("config.json", candidate.config, base.config if base else None)]
    for path in CONFIGS:
        if candidate.file(path) and not inherited(path, candidate, base):
            own = read_object(candidate, path, reader, skips)
            theirs = read_object(base, path, reader, skips) if own and "auto_map" in own else None
            named.append((path, own, theirs))
    for path, own, theirs in named:
        known = dict(_entries(theirs))
        for name, target in _entries(own):
            repo, _, rest = target.rpartition("--")
            same_code = known.get(name) == target and _same_code(rest, candidate, base)
            found.append(AutoMap(file=path, name=name, target=target, repo=repo or None, inherited=same_code))
    return tuple(found[:MAX_NAMES])


def _entries(config: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The names and classes; a list names a slow and a fast class."""
    maps = [(config or {}).get("auto_map")]
    pipelines = (config or {}).get("custom_pipelines")
    if isinstance(pipelines, Mapping):
        maps += [{name: item.get("impl")} for name, item in pipelines.items() if isinstance(item, Mapping)]
    for entries in maps:
        for name, target in entries.items() if isinstance(entries, Mapping) else ():
            for one in target if isinstance(target, list) else [target]:
                if isinstance(one, str):
                    yield str(name)[:MAX_NAMES], one[:MAX_NAMES]


def _same_code(target: str, candidate: RepoFacts, base: RepoFacts | None) -> bool:
    path = f"{target.rsplit('.', 1)[0].replace('.', '/')}.py"
    return candidate.file(path) is None or inherited(path, candidate, base)


def inspect_code(
    candidate: RepoFacts, base: RepoFacts | None, reader: TextReader, skips: list[Skip]
) -> tuple[CodeFile, ...]:
    """Look at every Python file that is not the base's, byte for byte."""
    paths = [entry.path for entry in candidate.files if entry.path.lower().endswith((".py", ".pyw", ".pth.py"))]
    same = [path for path in paths if inherited(path, candidate, base)]
    others = [path for path in paths if path not in set(same)]
    found = [CodeFile(path=path, inherited=True) for path in same[:MAX_NAMES]]
    for path in others[:MAX_FILES]:
        try:
            source = reader.read_text(candidate.ref, path, limit_bytes=MAX_SOURCE_BYTES)
        except HubAuditError as error:
            skips.append(Skip(what=path, why=f"The code was not looked at: {error}"))
            found.append(CodeFile(path=path, inherited=False, problem="it could not be read"))
            continue
        found.append(_inspect(path, source))
    if len(others) > MAX_FILES:
        skips.append(Skip(what=f"{len(others) - MAX_FILES} more Python files", why=f"{MAX_FILES} were looked at."))
        found += [
            CodeFile(path=path, inherited=False, problem="it was not looked at") for path in others[MAX_FILES:MAX_NAMES]
        ]
    return tuple(found)


def _inspect(path: str, source: str) -> CodeFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a stranger's file are not ours to report
            tree = ast.parse(source)
        acts = sorted(set(_acts(tree)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return CodeFile(path=path, inherited=False, problem="it is not Python that can be parsed")
    return CodeFile(path=path, inherited=False, acts=tuple(act[:MAX_NAMES] for act in acts[:MAX_ACTS]))


def _acts(tree: ast.AST) -> Iterator[str]:
    """Imports and calls that can act on the computer, by full name."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                names[(item.asname or item.name).split(".")[0]] = item.name if item.asname else item.name.split(".")[0]
                if _acts_module(item.name):
                    yield f"import {item.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for item in node.names:
                full = f"{node.module}.{item.name}"
                names[item.asname or item.name] = full
                if full in _ACTING_CALLS or (_acts_module(node.module) and full not in _HARMLESS):
                    yield f"import {full}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call | ast.Attribute | ast.Name):
            full = _full_name(node.func if isinstance(node, ast.Call) else node, names)
            if full in _ACTING_CALLS:
                yield full


def _acts_module(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in _ACTING_MODULES and name not in _HARMLESS


def _full_name(node: ast.AST, names: Mapping[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < 6:
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([names.get(node.id, node.id), *reversed(parts)])
