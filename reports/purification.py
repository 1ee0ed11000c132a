"""Reads the log of a purification (``purification.json``) that lies beside a report, for the page's before and after.

The log is a file like any other: what is not exactly as expected is not shown, and never an error, since the report
itself says nothing less without it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from audit.records import AuditReport, Outcome, PurificationRecord, PurifiedState

LOG_NAME = "purification.json"
MAX_LOG_BYTES = 16 << 20
WORDS_SHOWN = 5
_OUTCOMES = get_args(Outcome)


def with_purification(report: AuditReport, raw: bytes) -> AuditReport:
    """Return the report with what a log says, when the log is about the report's subject; else as it is.

    Args:
        report: of the model before its purification, or of the folder that came out of it.
        raw: the bytes of the log.
    """
    if len(raw) > MAX_LOG_BYTES:
        return report
    try:
        log = json.loads(raw)
        found = _record(log)
        subject = log["subject"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return report
    names = {subject.get("repo_id"), subject.get("path")} if isinstance(subject, dict) else set()
    mine = report.subject.path is not None or report.subject.name in names
    return replace(report, purification=found) if mine else report


def _record(log: Mapping[str, Any]) -> PurificationRecord:
    evaluation = log.get("evaluation") or {"before": {}, "after": {}}
    words = [word for word in log.get("gate", {}).get("words", ()) if isinstance(word, str)]
    return PurificationRecord(
        method=_text(log["method"]),
        chosen=_text(log["chosen"]),
        before=_state(log["before"], evaluation["before"]),
        after=_state(log["after"], evaluation["after"]),
        words=tuple(words[:WORDS_SHOWN]),
    )


def _state(verdict: Mapping[str, Any], evaluation: Mapping[str, Any]) -> PurifiedState:
    outcome = verdict["outcome"]
    if outcome not in _OUTCOMES:
        raise ValueError(outcome)
    attacks = evaluation.get("attacks") or ()
    successes = [_share(attack["success"]["value"]) for attack in attacks]
    return PurifiedState(
        outcome=outcome,
        score=_share(verdict["score"]),
        accuracy=_share(evaluation["accuracy"]["value"]) if evaluation else None,
        attack_success=max(successes) if successes else None,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)
