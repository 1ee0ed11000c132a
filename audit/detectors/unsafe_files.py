"""Pickles that do more than hold weights: what they would import when opened."""

from collections.abc import Iterator

from audit.evidence import Detector, Evidence, Hit, Rule
from audit.records import Location, Measurement
from audit.stated import listed, stated
from scanner.records import PickleImports

DANGEROUS = Rule(id="HA604", title="A pickle imports what can act on the computer that opens it", severity="critical")
UNKNOWN = Rule(id="HA605", title="A pickle imports code that weights do not need", severity="low", weighs=False)

_SHOWN = 5


def run(evidence: Evidence) -> Iterator[Hit]:
    """Tell each file once, by the worse of its imports."""
    for pickle in evidence.pickles:
        dangerous = bool(pickle.dangerous) or pickle.computed
        yield _hit(pickle, DANGEROUS if dangerous else UNKNOWN, evidence)


def _hit(pickle: PickleImports, rule: Rule, evidence: Evidence) -> Hit:
    names = pickle.dangerous if rule is DANGEROUS else pickle.unknown
    what = listed(names, most=_SHOWN)
    if pickle.computed:
        what = f"{what} and a name that is computed" if what else "a name that is computed while it is opened"
    return stated(
        evidence,
        rule,
        rule.severity,
        "exact",
        f"{pickle.path} imports {what}. Opening a pickle runs what it imports, unless the loader refuses it; "
        "weights need none of this. The file was not opened here.",
        "Do not open the file; load the model from safetensors, or ask the author for a file without it.",
        Measurement(
            name="imports beyond weights",
            value=float(len(names) + pickle.computed),
            unit="names",
            threshold=0.0,
            comparison=">",
        ),
        locations=(Location(file=pickle.path),),
        tensor=pickle.path,
        score=None if rule is DANGEROUS else 0.0,
    )


DETECTOR = Detector(
    name="unsafe_files",
    rules=(DANGEROUS, UNKNOWN),
    run=run,
    needs_drift=False,
    needs_verified_base=False,
)
