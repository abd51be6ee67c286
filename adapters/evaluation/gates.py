"""Gates: named checks with a threshold, and the report that decides whether something may be promoted.

A feature's version and a base release are judged by the same report. As JSON:

    {"subject": "summarization", "passed": false, "digest": "<SHA-256 of all the rest>",
     "gates": [{"name": "better_than_baseline", "passed": false, "figure": 0.02, "low": -0.01, "high": 0.05,
                "comparison": ">", "threshold": 0.0, "severity": "block", "detail": "..."}],
     "figures": {"candidate": 0.19, "candidate/email": 0.17}}

`comparison` is ">", ">=" or "<=". `figure` is null where the measurement gave no finite number; `detail` says which.
`low` and `high` are there if the figure has an interval, `judged` is "low" or "high" if that bound is what decides, and
`severity` is there if a failure only warns.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from adapters.evaluation.interval import Interval
from infra.canonical import digest
from infra.errors import FactoryError

Comparison = Literal[">", ">=", "<="]
Severity = Literal["block", "warn"]
Judged = Literal["figure", "low", "high"]


@dataclass(frozen=True)
class Gate:
    """One check: the measured figure with its interval, what it was held against, the verdict, and why, in words.

    A gate whose severity is "warn" is told of, and stops nothing.
    """

    name: str
    passed: bool
    figure: float | None
    threshold: float
    comparison: Comparison
    detail: str
    low: float | None = None
    high: float | None = None
    severity: Severity = "block"
    judged: Judged = "figure"

    @property
    def held(self) -> float | None:
        """What was held against the threshold: the figure, or a bound of its interval."""
        return {"figure": self.figure, "low": self.low, "high": self.high}[self.judged]

    def to_json(self) -> dict[str, Any]:
        """The gate as a mapping. What it does not use is left out: so reports from before keep their digests."""
        unused = {"low": None, "high": None, "severity": "block", "judged": "figure"}
        return {name: value for name, value in asdict(self).items() if name not in unused or value != unused[name]}


@dataclass(frozen=True)
class GateReport:
    """The verdict on one subject (a feature's name, or `base`): its gates and all measured figures by name."""

    subject: str
    gates: Sequence[Gate]
    figures: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every gate that can stop it passed. A report without gates has checked nothing and passes nothing."""
        return bool(self.gates) and not self.failed

    @property
    def failed(self) -> list[Gate]:
        """The gates that said no."""
        return [gate for gate in self.gates if not gate.passed and gate.severity == "block"]

    @property
    def warnings(self) -> list[Gate]:
        """The gates that failed and stop nothing."""
        return [gate for gate in self.gates if not gate.passed and gate.severity == "warn"]

    @property
    def metrics(self) -> dict[str, float]:
        """Figures, and of each gate `gate.NAME.passed`, `.figure`, `.low`, `.high` and `.threshold`: all as numbers."""
        metrics = dict(self.figures)
        for gate in self.gates:
            parts = {"figure": gate.figure, "low": gate.low, "high": gate.high, "threshold": gate.threshold}
            numbers = {name: value for name, value in parts.items() if value is not None}
            metrics |= {f"gate.{gate.name}.{name}": value for name, value in numbers.items()}
            metrics[f"gate.{gate.name}.passed"] = float(gate.passed)
        return metrics

    @property
    def digest(self) -> str:
        """SHA-256 of the report's content: the evidence that a ledger row names."""
        return digest(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "passed": self.passed,
            "gates": [gate.to_json() for gate in self.gates],
            "figures": dict(self.figures),
        }

    def to_json(self) -> str:
        """The report as indented JSON with its digest.

        Raises:
            ValueError: a figure is NaN or infinite.
        """
        content = {**self._content(), "digest": self.digest}
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "GateReport":
        """Read what `to_json` wrote.

        Raises:
            FactoryError: the text is no gate report, or its content does not have the digest that it states.
        """
        try:
            content = json.loads(text)
            gates = [Gate(**gate) for gate in content["gates"]]
            report = cls(content["subject"], gates, content["figures"])
            stated = content["digest"], content["passed"]
        except (ValueError, KeyError, TypeError) as error:
            raise FactoryError(f"not a gate report ({error}); evaluate the version again") from None
        if stated != (report.digest, report.passed):
            raise FactoryError(f"the gate report of {report.subject} was changed after it was written; evaluate again")
        return report


def at_least(
    name: str,
    figure: float,
    threshold: float,
    interval: Interval | None = None,
    severity: Severity = "block",
    words: str = "",
) -> Gate:
    """Passes if figure >= threshold; its interval is for the reader, `words` say more than the numbers do."""
    return _gate(name, figure, threshold, ">=", interval, severity, words)


def at_most(
    name: str,
    figure: float,
    threshold: float,
    interval: Interval | None = None,
    severity: Severity = "block",
    words: str = "",
) -> Gate:
    """Passes if figure <= threshold; as `at_least`."""
    return _gate(name, figure, threshold, "<=", interval, severity, words)


def bounded(
    name: str,
    found: Interval,
    threshold: float,
    comparison: Comparison,
    severity: Severity = "block",
    words: str = "",
) -> Gate:
    """Passes if the bound of an interval that counts against it keeps to the threshold: the upper one for <=."""
    judged: Judged = "high" if comparison == "<=" else "low"
    held = found.high if judged == "high" else found.low
    passed = _keeps(held, comparison, threshold)
    side = "below" if comparison == "<=" else "above"
    detail = f"{words or found}: its interval {'lies' if passed else 'must lie'} {side} {threshold:.4g}"
    return Gate(name, passed, found.value, threshold, comparison, detail, found.low, found.high, severity, judged)


def exceeds(name: str, found: Interval, threshold: float, severity: Severity = "block", words: str = "") -> Gate:
    """Passes if the figure itself is above the threshold; as `at_least`."""
    return _gate(name, found.value, threshold, ">", found, severity, words)


def _keeps(figure: float, comparison: Comparison, threshold: float) -> bool:
    return {">": figure > threshold, ">=": figure >= threshold, "<=": figure <= threshold}[comparison]


def _gate(
    name: str,
    figure: float,
    threshold: float,
    comparison: Comparison,
    interval: Interval | None,
    severity: Severity,
    words: str,
) -> Gate:
    """Compare; NaN fails every comparison, an infinite figure is compared as such (a PSNR of equal signals)."""
    figure, threshold = float(figure), float(threshold)
    passed = _keeps(figure, comparison, threshold)
    low, high = (interval.low, interval.high) if interval else (None, None)
    if not math.isfinite(figure):
        return Gate(name, passed, None, threshold, comparison, f"the figure is {figure}", low, high, severity)
    verdict = "meets" if passed else "misses"
    detail = f"{figure:.4g} {verdict} {comparison} {threshold:.4g} by {abs(figure - threshold):.2g}"
    detail += f" ({words})" if words else ""
    return Gate(name, passed, figure, threshold, comparison, detail, low, high, severity)
