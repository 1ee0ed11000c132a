"""The inputs of the GitHub Action, checked at the door: which models, against what, and what to do with the reports.

A configuration file is YAML::

    fail-on: fail             # for all, unless said otherwise
    authors: [my-org]         # every model of theirs
    models:
      - my-org/model-a
      - model: my-org/model-b
        base: org/base
        revision: v1.0
        fail-on: never
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pipelines.command import FAILING
from scanner.errors import BadReference
from scanner.paths import shown
from scanner.plain_yaml import BadYaml, load_mapping
from scanner.refs import parse_spec

MAX_MODELS = 2000
MAX_CONFIG_BYTES = 1 << 20
PUBLISH = ("none", "section", "pr", "discussion")
_TARGET_KEYS = frozenset({"model", "base", "revision", "fail-on"})
_CONFIG_KEYS = frozenset({"models", "authors", "base", "fail-on"})
_SEPARATORS = re.compile(r"[\s,]+")

Publish = Literal["none", "section", "pr", "discussion"]


class BadInput(BadReference):
    """An input of the action, or its configuration file, cannot be understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model to audit; ``model`` may carry ``@revision``."""

    model: str
    base: str | None = None
    fail_on: str = "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the workflow asked for. ``authors`` are those whose every model is to be audited.

    ``sarif_file``, ``baseline``, ``template_dir`` and ``ledger`` are None when not given; ``output`` is where the
    reports go.
    """

    targets: tuple[Target, ...]
    authors: tuple[str, ...]
    author_target: Target
    formats: tuple[str, ...]
    output: Path
    sarif_file: Path | None
    baseline: Path | None
    template_dir: Path | None
    ledger: Path | None
    publish: Publish
    summary: bool


def read_inputs(environment: Mapping[str, str], known_formats: tuple[str, ...]) -> Inputs:
    """Read ``INPUT_…`` variables, and the configuration file that they name.

    Raises:
        BadReference: what should be a model is none.
        BadInput: a value is not one of those allowed, a key is unknown, or no model is named.
        OSError: the configuration file cannot be read.
    """
    given = {
        name.removeprefix("INPUT_").lower().replace("_", "-"): value.strip()
        for name, value in environment.items()
        if name.startswith("INPUT_") and value.strip()
    }
    default = Target(
        model="",
        base=_text(given.get("base"), "base"),
        fail_on=_one_of(given.get("fail-on", "review"), "fail-on", tuple(FAILING)),
    )
    targets = [replace(default, model=_model(name)) for name in _words(given.get("models", ""))]
    authors: list[str] = []
    if "config" in given:
        more, authors, default = _configured(Path(given["config"]), default)
        targets += more
    if "revision" in given:
        if len(targets) != 1 or authors or "@" in targets[0].model:
            raise BadInput("The input revision goes with exactly one model; write org/name@revision for each instead.")
        targets = [replace(targets[0], model=_model(f"{targets[0].model}@{given['revision']}"))]
    if not targets and not authors:
        raise BadInput("No model is named; set the input models, or config.")
    if len(targets) > MAX_MODELS:
        raise BadInput(f"{len(targets):,} models are more than one job can audit ({MAX_MODELS:,}); split the list.")
    formats = tuple(dict.fromkeys(_one_of(name, "formats", known_formats) for name in _words(given.get("formats", ""))))
    if "sarif-file" in given and (len(targets) > 1 or authors):
        raise BadInput(
            "The input sarif-file takes one model; with several, upload the folder that the output sarif-path names."
        )
    return Inputs(
        targets=tuple(dict.fromkeys(targets)),
        authors=tuple(dict.fromkeys(authors)),
        author_target=default,
        formats=formats,
        output=_path(given.get("output")) or Path(environment.get("RUNNER_TEMP") or ".") / "hubaudit-reports",
        sarif_file=_path(given.get("sarif-file")),
        baseline=_path(given.get("baseline")),
        template_dir=_path(given.get("template-dir")),
        ledger=_path(given.get("ledger")),
        publish=_one_of(given.get("publish", "none"), "publish", PUBLISH),  # type: ignore[arg-type]
        summary=_one_of(given.get("summary", "true").lower(), "summary", ("true", "false")) == "true",
    )


def _configured(path: Path, default: Target) -> tuple[list[Target], list[str], Target]:
    """Return the models and authors of a configuration file, and what holds for models that say nothing."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise BadInput(f"{path} is larger than {MAX_CONFIG_BYTES:,} bytes; split the list.")
    try:
        values, repeated = load_mapping(path.read_text(encoding="utf-8", errors="replace"))
    except BadYaml as error:
        raise BadInput(f"{path} {error}.") from error
    if repeated:
        raise BadInput(f"{path} gives {', '.join(map(shown, repeated))} more than once.")
    _check_keys(values, _CONFIG_KEYS, str(path))
    default = _overridden(default, values, str(path))
    entries, authors = values.get("models") or [], values.get("authors") or []
    if not isinstance(entries, list) or not isinstance(authors, list):
        raise BadInput(f"{path}: models and authors are lists.")
    targets = []
    for entry in entries:
        where = f"{path}, {shown(str(entry))}"
        fields = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict):
            raise BadInput(f"{where}: a model is a name, or a mapping with the key model.")
        _check_keys(fields, _TARGET_KEYS, where)
        name = _text(fields.get("model"), "model", where)
        if name is None:
            raise BadInput(f"{where}: the key model is missing.")
        revision = _text(fields.get("revision"), "revision", where)
        target = _overridden(default, fields, where)
        targets.append(replace(target, model=_model(f"{name}@{revision}" if revision else name)))
    return targets, [_model(str(author)) for author in authors], default


def _overridden(default: Target, fields: Mapping[str, Any], where: str) -> Target:
    base = _text(fields.get("base"), "base", where) or default.base
    fail_on = _one_of(_text(fields.get("fail-on"), "fail-on", where) or default.fail_on, "fail-on", tuple(FAILING))
    return replace(default, base=base, fail_on=fail_on)


def _check_keys(fields: Mapping[str, Any], allowed: frozenset[str], where: str) -> None:
    for key in fields:
        if key not in allowed:
            near = get_close_matches(key, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(sorted(allowed))}."
            raise BadInput(f"{where}: there is no key {shown(key)}; {hint}")


def _text(value: object, name: str, where: str = "input") -> str | None:
    """Return a value that is a printable text, None when it is absent."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadInput(f"{where}: {name} is not a text.")
    return value.strip()


def _model(text: str) -> str:
    """Return what names a model, or an author; whether the Hub has it is found out later.

    Raises:
        BadReference: it names neither, so the whole configuration is held to be wrong.
    """
    parse_spec(text)
    return text


def _one_of(value: str, name: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadInput(f"{name} is {shown(value)}; it takes {', '.join(allowed)}.")
    return value


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text) if word]


def _path(text: str | None) -> Path | None:
    """Return a path, None when none is given.

    Raises:
        BadInput: it could not be an output of a step.
    """
    if text is None:
        return None
    if not text.isprintable():
        raise BadInput("A path has a character in it that cannot be printed.")
    return Path(text)
