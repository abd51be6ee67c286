"""What a run did for one subject (a feature, or the base release): the row of the closing table."""

from dataclasses import asdict, dataclass, field
from typing import Any

from adapters.evaluation.gates import GateReport


@dataclass
class Outcome:
    """`passed` is None where nothing was tested; `seconds` are spent per stage; `bits_per_weight` are linear, all, all
    with recovery; `error` is what stopped the subject, in words."""

    subject: str
    state: str
    version: int | None = None
    passed: bool | None = None
    gates: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    bits_per_weight: list[float] = field(default_factory=list)
    adapter_mb: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    report: str = ""
    error: str = ""

    def judged(self, report: GateReport) -> None:
        """Take over what a gate report says."""
        self.passed = report.passed
        self.gates = [gate.to_json() for gate in report.gates]
        self.figures = dict(report.figures)

    @property
    def failed(self) -> str:
        """The gates that said no, by name."""
        return ", ".join(gate["name"] for gate in self.gates if stops(gate))

    def to_json(self) -> dict[str, Any]:
        """The outcome as a mapping, as flows return it and `factory run --json` prints it."""
        return asdict(self)


def stops(gate: dict[str, Any]) -> bool:
    """Whether a gate, as `Gate.to_json` gives it, failed and is more than a warning."""
    return not gate["passed"] and gate.get("severity", "block") == "block"
