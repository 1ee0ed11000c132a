"""Two sets of edits, one after the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.purify.job import Edits, PurifyResult
from scanner.records import Rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stacked:
    """``second`` sees what ``first`` has left. Both were made for the candidate as it is."""

    first: Edits
    second: Edits

    @property
    def names(self) -> frozenset[str]:
        """What either changes."""
        return self.first.names | self.second.names

    def panel(self, name: str, rows: Rows, stored: "Tensor") -> "Tensor":
        """Return the rows after both."""
        if name in self.first.names:
            stored = self.first.panel(name, rows, stored)
        return self.second.panel(name, rows, stored) if name in self.second.names else stored


def stacked(first: PurifyResult, second: PurifyResult) -> PurifyResult:
    """Return both results as one, with both logs."""
    return PurifyResult(
        edits=Stacked(first.edits, second.edits),
        chosen=f"{first.chosen} {second.chosen}",
        log={**first.log, **second.log},
    )
