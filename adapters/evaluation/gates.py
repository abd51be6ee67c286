"""Gates: named checks with a threshold, and the report that decides whether something may be promoted.

A feature's version and a base release are judged by the same report. As JSON:

    {"subject": "summarization", "passed": false, "digest": "<SHA-256 of all the rest>",
     "gates": [{"name": "better_than_baseline", "passed": false, "figure": 0.19, "comparison": ">",
                "threshold": 0.2, "detail": "0.19 misses > 0.2 by 0.01"}],
     "figures": {"candidate": 0.19, "candidate/email": 0.17}}

`comparison` is ">", ">=" or "<=". `figure` is null where the measurement gave no finite number; `detail` says which.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from infra.canonical import digest
from infra.errors import FactoryError

Comparison = Literal[">", ">=", "<="]


@dataclass(frozen=True)
class Gate:
    """One check: the measured figure, what it was held against, the verdict, and by how much, in words."""

    name: str
    passed: bool
    figure: float | None
    threshold: float
    comparison: Comparison
    detail: str


@dataclass(frozen=True)
class GateReport:
    """The verdict on one subject (a feature's name, or `base`): its gates and all measured figures by name."""

    subject: str
    gates: Sequence[Gate]
    figures: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """Whether every gate passed. A report without gates has checked nothing and passes nothing."""
        return bool(self.gates) and not self.failed

    @property
    def failed(self) -> list[Gate]:
        """The gates that said no."""
        return [gate for gate in self.gates if not gate.passed]

    @property
    def digest(self) -> str:
        """SHA-256 of the report's content: the evidence that a ledger row names."""
        return digest(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "passed": self.passed,
            "gates": [asdict(gate) for gate in self.gates],
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


def at_least(name: str, figure: float, threshold: float) -> Gate:
    """Passes if figure >= threshold."""
    return _gate(name, figure, threshold, ">=")


def at_most(name: str, figure: float, threshold: float) -> Gate:
    """Passes if figure <= threshold."""
    return _gate(name, figure, threshold, "<=")


def better_than(name: str, figure: float, baseline: float, margin: float = 0.0) -> Gate:
    """Passes if figure > baseline + margin; with a margin of zero an equal figure is not better."""
    return _gate(name, figure, baseline + margin, ">")


def _gate(name: str, figure: float, threshold: float, comparison: Comparison) -> Gate:
    """Compare; NaN fails every comparison, an infinite figure is compared as such (a PSNR of equal signals)."""
    figure, threshold = float(figure), float(threshold)
    passed = {">": figure > threshold, ">=": figure >= threshold, "<=": figure <= threshold}[comparison]
    if not math.isfinite(figure):
        return Gate(name, passed, None, threshold, comparison, f"the figure is {figure}")
    verdict = "meets" if passed else "misses"
    detail = f"{figure:.4g} {verdict} {comparison} {threshold:.4g} by {abs(figure - threshold):.2g}"
    return Gate(name, passed, figure, threshold, comparison, detail)
