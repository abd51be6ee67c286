"""Verdicts on answers, by people or models, and how far those who judge agree.

JSONL, one verdict a row, whoever gives it:

    {"item": "email-0004", "judge": "ana", "one": "candidate", "other": "baseline", "winner": "candidate"}
    {"item": "email-0004", "judge": "ana", "system": "candidate", "grades": {"composition": "good", …}}

The first compares two systems (`winner` is one of them, or "tie"), the second grades one in five dimensions. An answer
is good if all its grades are, poor if any is, else fair. `"version": 3` may say which version the candidate is.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import FactoryError

Grade = Literal["good", "fair", "poor"]
DIMENSIONS = ("composition", "comprehensiveness", "groundedness", "instructions", "harmlessness")
TIE = "tie"
_CANDIDATE = "candidate"


class _Verdict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str = Field(min_length=1)
    judge: str = Field(min_length=1)
    version: int | None = None


class Preference(_Verdict):
    """Which of two systems answered an item better."""

    one: str
    other: str
    winner: str

    @model_validator(mode="after")
    def _winner_took_part(self) -> "Preference":
        if self.one == self.other or self.winner not in (self.one, self.other, TIE):
            raise ValueError(f"winner is one of two systems or {TIE!r}")
        return self


class Grades(_Verdict):
    """How good one system's answer is, dimension by dimension."""

    system: str
    grades: dict[Literal["composition", "comprehensiveness", "groundedness", "instructions", "harmlessness"], Grade]

    @model_validator(mode="after")
    def _all_dimensions(self) -> "Grades":
        missing = [name for name in DIMENSIONS if name not in self.grades]
        if missing:
            raise ValueError(f"grades lack {', '.join(missing)}")
        return self

    @property
    def overall(self) -> Grade:
        """Good if all grades are good, poor if any is poor, else fair."""
        given = set(self.grades.values())
        return "poor" if "poor" in given else "good" if given == {"good"} else "fair"


Verdict = Preference | Grades


def read_verdicts(path: Path) -> list[Verdict]:
    """The verdicts of a JSONL file.

    Raises:
        FactoryError: a row is none.
    """
    verdicts: list[Verdict] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            kind = Grades if '"grades"' in line else Preference
            try:
                verdicts.append(kind.model_validate_json(line))
            except ValidationError as error:
                problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'row'}: {e['msg']}" for e in error.errors())
                raise FactoryError(f"{path}:{number}: no verdict: {problems}") from None
    return verdicts


def write_verdicts(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write verdicts as JSONL."""
    path.write_text("".join(verdict.model_dump_json(exclude_none=True) + "\n" for verdict in verdicts), "utf-8")


def of_version(verdicts: Sequence[Verdict], version: int) -> list[Verdict]:
    """The verdicts on a version of the candidate: those that name it, and those that name none, which now do."""
    meant = (verdict for verdict in verdicts if verdict.version in (None, version))
    return [verdict.model_copy(update={"version": version}) for verdict in meant]


def summary(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """Figures by judge: `win_rate` of the candidate, `ties`, `pairs`; and per system `SYSTEM.good`, `SYSTEM.poor`."""
    figures: dict[str, dict[str, float]] = {}
    for judge in dict.fromkeys(verdict.judge for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.judge == judge]
        found = figures.setdefault(judge, {})
        if winners := _winners(own):
            found["win_rate"] = _win_rate(winners)
            found["ties"] = winners.count(TIE) / len(winners)
            found["pairs"] = float(len(winners))
        grades = [verdict for verdict in own if isinstance(verdict, Grades)]
        for system in dict.fromkeys(verdict.system for verdict in grades):
            given = [verdict.overall for verdict in grades if verdict.system == system]
            found[f"{system}.good"] = given.count("good") / len(given)
            found[f"{system}.poor"] = given.count("poor") / len(given)
    return figures


def candidate_figures(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """`win_rate` of the candidate over all `pairs` (a tie is half), shares of `good` and `poor` over all `graded`.

    Where nobody compared, or graded, they are the worst that they could be: a gate on them then fails.
    """
    winners = _winners(verdicts)
    grades = [one.overall for one in verdicts if isinstance(one, Grades) and one.system == _CANDIDATE]
    return {
        "win_rate": _win_rate(winners) if winners else 0.0,
        "good": grades.count("good") / len(grades) if grades else 0.0,
        "poor": grades.count("poor") / len(grades) if grades else 1.0,
        "pairs": float(len(winners)),
        "graded": float(len(grades)),
    }


def _winners(verdicts: Sequence[Verdict]) -> list[str]:
    """Who won each pair that the candidate was part of, in whatever order the row names the two."""
    return [one.winner for one in verdicts if isinstance(one, Preference) and _CANDIDATE in (one.one, one.other)]


def _win_rate(winners: Sequence[str]) -> float:
    return (winners.count(_CANDIDATE) + winners.count(TIE) / 2) / len(winners)


def agreement(verdicts: Sequence[Verdict]) -> list[dict[str, object]]:
    """For each two judges with verdicts in common: how many, the share of equal ones, and Cohen's kappa.

    Kappa (Cohen, 1960) is 0 where judges agree no more than by chance and 1 where always; it is left out where both
    always say the same one thing, for then chance explains everything.
    """
    said: dict[str, dict[tuple[str, ...], str]] = {}
    for verdict in verdicts:
        key, value = _comparable(verdict)
        said.setdefault(verdict.judge, {})[key] = value
    rows: list[dict[str, object]] = []
    for one, other in combinations(said, 2):
        common = sorted(said[one].keys() & said[other].keys())
        if common:
            left, right = ([said[judge][key] for key in common] for judge in (one, other))
            row: dict[str, object] = {"judges": [one, other], "verdicts": len(common), "equal": _equal(left, right)}
            if len({*left, *right}) > 1:
                row["kappa"] = kappa(left, right)
            rows.append(row)
    return rows


def kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Cohen's kappa of two judges over the same items."""
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(list(one), list(other)))


def _equal(one: Sequence[str], other: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _comparable(verdict: Verdict) -> tuple[tuple[str, ...], str]:
    """What a verdict is about, the version too, and what it says, however its systems are ordered."""
    about = verdict.item, str(verdict.version)
    if isinstance(verdict, Preference):
        return ("pair", *about, *sorted((verdict.one, verdict.other))), verdict.winner
    return ("grades", *about, verdict.system), verdict.overall
