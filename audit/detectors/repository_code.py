"""Code, programs and archives that come with a model, and what the Hub's own scanners said of its files.

Severity follows from who runs it: what a configuration names runs when the model is loaded with remote code allowed, a
program when somebody starts it.
"""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Confidence, Location, Measurement, Severity
from audit.stated import listed, stated
from scanner.side.records import AutoMap, CodeFile, Program

REMOTE = Rule(id="HA731", title="The configuration names code to load", severity="low", weighs=False)
ACTS = Rule(id="HA732", title="Code of the repository can act on the computer that runs it", severity="high")
PROGRAMS = Rule(id="HA733", title="The repository holds programs or archives", severity="medium")
FLAGGED = Rule(id="HA741", title="The Hub's scanners complain about files", severity="high")
UNSCANNED = Rule(id="HA742", title="The Hub's scan is not known to be finished", severity="info", weighs=False)

_RUNS = ("exec", "eval", "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.startfile")
_RUNS_MODULES = ("import subprocess", "import pty", "import ctypes", "import runpy", "import marshal")
_NETWORK = ("requests", "urllib", "http", "httpx", "aiohttp", "socket", "ftplib", "smtplib", "paramiko", "telnetlib")
_DECODES = ("base64.", "zlib.", "codecs.decode")
_RUN_BY_OTHERS = (
    "handler.py",
    "custom_generate/generate.py",
    "__init__.py",
    "setup.py",
    "conftest.py",
    "sitecustomize.py",
)
"""Files that libraries and services import without being told to in a configuration."""
_QUIET_KINDS = frozenset(
    {"shell script", "notebook", "JavaScript", "script", "Python package", "archive", "WebAssembly program"}
)
"""What training leaves lying about; anything else is a program that a model has no use for."""
_LEVELS: dict[str, Severity] = {"unsafe": "high", "suspicious": "medium", "caution": "low"}
_SHOWN = 3


def run(evidence: Evidence) -> Iterator[Hit]:
    """Judge configurations, code, programs, and the Hub's scan."""
    if evidence.side.auto_maps:
        yield _remote(evidence.side.auto_maps, evidence)
    yield from _acting(evidence)
    programs = [program for program in evidence.side.programs if not program.inherited]
    if programs:
        yield _programs(programs, evidence)
    yield from _scan(evidence)


def _remote(entries: tuple[AutoMap, ...], evidence: Evidence) -> Hit:
    base = evidence.base.ref.repo_id if evidence.base else None
    foreign = [entry for entry in entries if entry.repo is not None and entry.repo != base]
    own = [entry for entry in entries if not entry.inherited]
    targets = listed((f"{entry.target!r}" for entry in (foreign or own or list(entries))), most=_SHOWN)
    where = " It lies in another repository, whose owner may change it at any time." if foreign else ""
    same = "" if own else " It is the base's own code, byte for byte."
    return _hit(
        evidence,
        REMOTE,
        "medium" if foreign else "low" if own else "info",
        "exact",
        f"Loading the model with remote code allowed runs {targets}.{where}{same}",
        "Load it without trust_remote_code, or read the code and pin the commit.",
        Measurement(name="classes named", value=float(len(entries)), unit="classes"),
        tuple(dict.fromkeys(entry.file for entry in entries)),
        weighs=False,
    )


def _acting(evidence: Evidence) -> Iterator[Hit]:
    named = {
        f"{entry.target.rsplit('--', 1)[-1].rsplit('.', 1)[0].replace('.', '/')}.py"
        for entry in evidence.side.auto_maps
    }
    for file in evidence.side.code:
        if file.acts:
            loaded = file.path in named or file.path.endswith(_RUN_BY_OTHERS)
            yield _acts(file, evidence, grave=loaded or _is_dropper(file), loaded=loaded)
        elif file.problem and file.path in named:
            yield _unread(file, evidence)


def _is_dropper(file: CodeFile) -> bool:
    """Runs what it decodes or fetches: the shape of a loader of something else."""
    runs = any(act.startswith((*_RUNS, *_RUNS_MODULES)) for act in file.acts)
    fetches = any(act.startswith(tuple(f"import {name}" for name in _NETWORK)) for act in file.acts)
    decodes = any(act.startswith(_DECODES) for act in file.acts)
    return runs and (fetches or decodes)


def _acts(file: CodeFile, evidence: Evidence, *, grave: bool, loaded: bool) -> Hit:
    who = "A library or service runs it when the model is loaded with its code." if loaded else "It runs when started."
    return _hit(
        evidence,
        ACTS,
        "high" if grave else "low",
        "medium",
        f"{file.path} uses {listed(file.acts, most=_SHOWN)}. {who} Models need neither programs nor the network. "
        f"The code was read, not run; what it does with these was not followed.",
        "Read the file before running it; load the model without its code where that is possible.",
        Measurement(
            name="calls and imports that act", value=float(len(file.acts)), unit="names", threshold=0.0, comparison=">"
        ),
        (file.path,),
        weighs=grave,
    )


def _unread(file: CodeFile, evidence: Evidence) -> Hit:
    return _hit(
        evidence,
        ACTS,
        "medium",
        "low",
        f"{file.path} is named by a configuration and {file.problem}: what it does is unknown.",
        "Do not allow remote code for this model before somebody has read the file.",
        Measurement(name="files not understood", value=1.0, unit="files", threshold=0.0, comparison=">"),
        (file.path,),
        weighs=True,
    )


def _programs(programs: list[Program], evidence: Evidence) -> Hit:
    grave = [program for program in programs if program.kind not in _QUIET_KINDS]
    filled = [program for program in programs if program.members]
    first = (grave or filled or programs)[:_SHOWN]
    names = listed(
        (
            f"{program.path!r} ({program.kind}{f', holds {program.members[0]!r}' if program.members else ''})"
            for program in (*first, *(p for p in programs if p not in first))
        ),
        most=_SHOWN,
    )
    severity: Severity = "medium" if grave else "low" if filled else "info"
    return _hit(
        evidence,
        PROGRAMS,
        severity,
        "exact",
        f"Beside the model there are {names}, which the base does not have. Loading a model needs none of them.",
        "Do not start or unpack them unless you know what they are for.",
        Measurement(
            name="programs and archives", value=float(len(programs)), unit="files", threshold=0.0, comparison=">"
        ),
        tuple(program.path for program in programs),
        weighs=bool(grave),
    )


def _scan(evidence: Evidence) -> Iterator[Hit]:
    """The Hub's judgement; that there is none, or not yet, is told and is not a good sign."""
    if evidence.candidate.ref.repo_id is None or not evidence.candidate.hub:
        return
    security = evidence.candidate.hub.get("security")
    issues = [issue for issue in (security or {}).get("issues", ()) if isinstance(issue, dict)]
    if issues:
        levels: list[Severity] = [_LEVELS.get(str(issue.get("level")), "low") for issue in issues]
        worst: Severity = next((level for level in ("high", "medium") if level in levels), "low")
        said = listed(
            (f"{str(issue.get('path'))[:100]!r}: {str(issue.get('level'))[:20]}" for issue in issues), most=_SHOWN
        )
        yield _hit(
            evidence,
            FLAGGED,
            worst,
            "medium",
            f"The Hub's own scanners report {said}.",
            "See the scan results on the model's page, and avoid these files.",
            Measurement(name="files reported", value=float(len(issues)), unit="files", threshold=0.0, comparison=">"),
            tuple(str(issue.get("path"))[:300] for issue in issues if issue.get("path")),
            weighs=worst != "low",
        )
    if security is None or not security.get("done"):
        what = "has not finished its scan" if security is not None else "did not say whether it has scanned the files"
        yield _hit(
            evidence,
            UNSCANNED,
            "info",
            "exact",
            f"The Hub {what}. Not scanned does not mean that nothing is there.",
            "Look at the model's page again later.",
            Measurement(name="scans known to be finished", value=0.0, unit="scans"),
            ("README.md",),
            weighs=False,
        )


def _hit(
    evidence: Evidence,
    rule: Rule,
    severity: Severity,
    confidence: Confidence,
    explanation: str,
    remedy: str,
    measurement: Measurement,
    files: tuple[str, ...],
    *,
    weighs: bool,
) -> Hit:
    most = int(evidence.profile.value("findings.most"))
    return stated(
        evidence,
        rule,
        severity,
        confidence,
        explanation,
        remedy,
        measurement,
        locations=tuple(Location(file=file) for file in files[:most]) or (Location(file="README.md"),),
        discriminator=files[0] if rule is ACTS else "",
        score=None if weighs else 0.0,
    )


DETECTOR = Detector(
    name="repository_code",
    rules=(REMOTE, ACTS, PROGRAMS, FLAGGED, UNSCANNED),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
