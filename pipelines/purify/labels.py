"""From the labels of a data set to the classes of a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scanner.errors import BadReference, CouldNotConclude
from scanner.paths import shown

_SHOWN_LABELS = 8


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a model's classes by index, as its config has them; ``LABEL_0`` and on where it has none.

    Raises:
        CouldNotConclude: the config does not say how many classes there are, or numbers them with gaps.
    """
    declared = config.get("id2label")
    count = config.get("num_labels")
    if not isinstance(declared, Mapping) or not declared:
        if declared is None and count is None:
            return ("LABEL_0", "LABEL_1")  # transformers leaves out what its default says
        if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= 1_000_000:
            return tuple(f"LABEL_{i}" for i in range(count))
        raise CouldNotConclude("config.json does not say which classes the model has; add id2label to it.")
    try:
        named = {int(index): str(name) for index, name in declared.items()}
    except ValueError as error:
        raise CouldNotConclude("id2label in config.json is not numbered; correct it.") from error
    if sorted(named) != list(range(len(named))):
        raise CouldNotConclude("id2label in config.json does not number the classes from 0 on; correct it.")
    return tuple(named[i] for i in range(len(named)))


@dataclass(frozen=True, slots=True)
class LabelReader:
    """Finds the class of a label: by the user's own map, by name, or by index.

    ``classes`` are the model's; ``source`` those that the data set declares for its numbers, if any; ``mapped`` is
    the user's map from label to class, both as texts.
    """

    classes: tuple[str, ...]
    source: tuple[str, ...] = ()
    mapped: Mapping[str, str] | None = None

    def index(self, value: Any) -> int | None:
        """Return the class index of a label; None when there is no such class."""
        text = self._text(value)
        if text is None:
            return None
        for key in dict.fromkeys((text, self._declared(text))):
            if self.mapped and key in self.mapped:
                return self._by_name(self.mapped[key])
        declared = self._declared(text)
        if declared != text and not self.generic:
            return self._by_name(declared)
        return self._by_name(text)

    @property
    def generic(self) -> bool:
        """True when the model's own names say nothing (``LABEL_0``), so that numbers are all there is."""
        return all(name.upper() == f"LABEL_{i}" for i, name in enumerate(self.classes))

    def check_map(self) -> None:
        """Refuse a map to classes that the model does not have.

        Raises:
            BadReference: there is such an entry.
        """
        for label, name in (self.mapped or {}).items():
            if self._by_name(name) is None:
                raise BadReference(f"--label-map {label}={name}: the model has no class {name}; {self.told()}.")

    def told(self) -> str:
        """The model's classes, for a message."""
        listed = ", ".join(f"{i} {shown(name, 40)}" for i, name in enumerate(self.classes[:_SHOWN_LABELS]))
        return f"its classes are {listed}{' ...' if len(self.classes) > _SHOWN_LABELS else ''}"

    def mismatch(self, strange: Sequence[str]) -> CouldNotConclude:
        """Return (not raise) the error for labels that are no class."""
        listed = ", ".join(shown(label, 40) for label in strange[:_SHOWN_LABELS])
        return CouldNotConclude(
            f"The labels {listed} are no classes of the model; {self.told()}. Say which is which with "
            "--label-map LABEL=CLASS."
        )

    def _declared(self, text: str) -> str:
        return self.source[int(text)] if self.source and text.isdecimal() and int(text) < len(self.source) else text

    def _by_name(self, text: str) -> int | None:
        folded = text.strip().casefold()
        for index, name in enumerate(self.classes):
            if folded in {name.strip().casefold(), f"label_{index}", str(index)}:
                return index
        return None

    @staticmethod
    def _text(value: Any) -> str | None:
        if value is None or isinstance(value, (list, dict, bytes)):
            return None
        if isinstance(value, bool):
            return str(int(value))
        if isinstance(value, float):
            return str(int(value)) if math.isfinite(value) and value.is_integer() else None
        text = str(value).strip()
        # Pandas writes a column of integers with holes as 0.0 and 1.0.
        return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, or a text that says so."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in {"", "nan", "none", "null", "n/a", "na"}
