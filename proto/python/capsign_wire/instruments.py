"""What an instrument of the catalogue of metrics is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

Labels = tuple[str, ...]
"""Values, in the order of the instrument's labels. An empty one means that the series has no such
label.
"""


class Kind(Enum):
    """How an instrument is exported."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of the catalogue. `labels` gives each label's values, `buckets` the upper bounds of a
    histogram, inclusive.

    `only` names the combinations of labels that there are, where they are fewer than all.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    only: frozenset[Labels] = frozenset()

    def series(self) -> list[Labels]:
        """Every combination of labels that there can be, sorted."""
        return sorted(self.only or itertools.product(*self.labels.values()))

    def refuse_strangers(self, values: Labels) -> None:
        """Raises ValueError if these are not values that the catalogue gives the labels, in
        order.
        """
        strange = len(values) != len(self.labels) or any(
            v not in known for v, known in zip(values, self.labels.values(), strict=True)
        )
        if strange or (self.only and values not in self.only):
            raise ValueError(f"{self.name} takes labels {dict(self.labels)}")
