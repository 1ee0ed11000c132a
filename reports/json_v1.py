"""The wire format v1: the one place where a report becomes JSON and comes back.

``schema`` is a URI that ends in ``/v1``. Within v1, fields are only ever added; a removed field, a changed unit or a
changed meaning makes v2, in a module of its own, and this reader stays. Readers ignore keys they do not know. Every
number is finite. The output is ASCII: what could steer a terminal or hide in a text is escaped by JSON itself, so
names come back exactly as they were; only lone surrogates, which JSON readers reject, become U+FFFD.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json

from audit.curvature_fields import CurvatureRecord
from audit.records import (
    SCHEMA_V1,
    AuditReport,
    CardClaim,
    CoverageRecord,
    DriftRecord,
    Finding,
    LineageRecord,
    ProbeRecord,
    PurificationRecord,
    RuntimeRecord,
    Subject,
    ToolRecord,
    TriageRecord,
    Verdict,
)
from reports.safe_text import clean_line
from scanner.errors import HubAuditError

MAJOR = "1"
INTEGER_LIMIT = 2**63
"""Integers stay below this in size, since many JSON readers know no larger ones."""

DEPTH_LIMIT = 20
"""Levels of nesting; a report of ours has eight."""

_VERSION = re.compile(r"/v(\d+)\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ReportFormatError(HubAuditError):
    """The bytes are not a report that this version reads, or the report cannot be written as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardV1:
    """The card's checkable claims."""

    claims: tuple[CardClaim, ...] = ()


@with_config(ConfigDict(strict=True, allow_inf_nan=False, title="hubaudit report, v1"))
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportV1:
    """One finished audit of a model, compared with its base."""

    schema: str
    tool: ToolRecord
    created_at: str
    subject: Subject
    lineage: LineageRecord
    coverage: CoverageRecord
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    card: CardV1 = field(default_factory=CardV1)
    drift: tuple[DriftRecord, ...] = ()
    runtime: RuntimeRecord
    profile: Mapping[str, Any] = field(default_factory=dict)
    probe: ProbeRecord | None = None
    triage: TriageRecord | None = None
    purification: PurificationRecord | None = None
    curvature: CurvatureRecord | None = None


def dump(report: AuditReport) -> bytes:
    """Return the report as ASCII JSON, keys in schema order, ending in a newline.

    Raises:
        ReportFormatError: a number is not finite, a value has no place in JSON, or the schema is not v1.
    """
    _require_v1(report.schema)
    parts = {part.name: getattr(report, part.name) for part in fields(report)}
    wire = ReportV1(**(parts | {"card": CardV1(claims=report.card)}))
    return json.dumps(_plain(wire, "report"), allow_nan=False, indent=1).encode("ascii") + b"\n"


def load(data: bytes) -> AuditReport:
    """Read a report of any v1 release.

    Raises:
        ReportFormatError: not JSON, another major version, a missing field, a wrong type, or a number that is not
            finite; the sentence names the first place.
    """
    try:
        wire = _adapter().validate_json(data)
    except ValidationError as error:
        _require_v1(_schema_of(data))
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(("report", *map(str, first["loc"])))
        raise _refusal(f"{where}: {first['msg']}") from None
    _require_v1(wire.schema)
    _plain(wire, "report")
    parts = {part.name: getattr(wire, part.name) for part in fields(wire)}
    return AuditReport(**(parts | {"card": wire.card.claims}))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the format, as committed in ``schemas/audit-report.v1.json``."""
    schema = _adapter().json_schema(mode="serialization")
    schema["properties"]["schema"]["pattern"] = r"/v1$"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_V1, **schema}


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[ReportV1]:
    """Build the validator once, and only when JSON is read: it takes longer than reading a report."""
    return TypeAdapter(ReportV1)


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return the value as JSON types, or complain about the first part that JSON cannot carry."""
    if depth > DEPTH_LIMIT:
        raise _refusal(f"{where}: nested too deeply")
    match value:
        case None | bool():
            return value
        case str():
            return _SURROGATE.sub("\ufffd", value)
        case Integral():
            if abs(int(value)) >= INTEGER_LIMIT:
                raise _refusal(f"{where}: an integer of more than 64 bits")
            return int(value)
        case Real():
            if not math.isfinite(value):
                raise _refusal(f"{where}: a number that is not finite")
            return float(value)
        case Mapping():
            return {_plain(str(key), where): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
        case tuple() | list():
            return [_plain(item, f"{where}.{index}", depth + 1) for index, item in enumerate(value)]
        case _ if is_dataclass(value):
            return {
                part.name: _plain(getattr(value, part.name), f"{where}.{part.name}", depth + 1)
                for part in fields(value)
            }
        case _:
            raise _refusal(f"{where}: a {type(value).__name__}, which JSON has no form for")


def _require_v1(schema: object) -> None:
    """Complain unless the schema's major version is ours.

    Raises:
        ReportFormatError: it is another version, or none.
    """
    found = _VERSION.search(schema) if isinstance(schema, str) else None
    if found is None:
        raise _refusal("its schema does not end in a version such as /v1")
    if found[1] != MAJOR:
        raise ReportFormatError(
            f"This report has format version {found[1][:9]}, and this hubaudit reads version {MAJOR}; "
            "update hubaudit, or scan again."
        )


def _schema_of(data: bytes) -> object:
    """Return what a broken report says of its version, so that a newer format is not called broken."""
    try:
        tree = from_json(data)
    except ValueError:
        raise _refusal("it is not JSON") from None
    return tree.get("schema") if isinstance(tree, dict) else None


def _refusal(why: str) -> ReportFormatError:
    return ReportFormatError(f"This is not a report that hubaudit can use: {clean_line(why)}. Scan again to make one.")
