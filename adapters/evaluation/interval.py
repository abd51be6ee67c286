"""A figure and how far it may be chance."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A measured figure or difference with the bounds of its bootstrap percentile interval."""

    value: float
    low: float
    high: float

    def negated(self) -> "Interval":
        """The same difference, taken the other way round."""
        return Interval(-self.value, -self.high, -self.low)

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"
