"""What report pages are made of: templates, pictures within the page, and other stages' files in words.

Texts in a page were written by anyone: the templates escape everything, and the pages' policy allows no script at all.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.evaluation.figures import SCHEMES, file_name
from adapters.evaluation.gates import Gate

_UNITS = {"mb": "MB", "db": "dB", "kl": "KL", "psnr": "PSNR", "bpw": "bits per weight,"}


def render(template: str, page: Mapping[str, Any]) -> str:
    """A page of this room from its template; every value is escaped, a missing one is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": lambda value: f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}",
        "number": lambda value: f"{value:,}" if isinstance(value, int) else f"{value:,.4g}",
        "margin": _margin,
        "probability": lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}",
        "signed": _signed,
        "words": words,
        "sign": lambda comparison: comparison.replace(">=", "≥").replace("<=", "≤"),
    }
    return environment.get_template(template).render(page)


def _margin(gate: Gate) -> str:
    """How far inside its threshold what a gate judges is; below zero it is outside."""
    if gate.held is None:
        return ""
    room = gate.threshold - gate.held if gate.comparison == "<=" else gate.held - gate.threshold
    return _signed(room)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def embedded(folder: Path, name: str) -> dict[str, str]:
    """A picture's variants by scheme as data URIs."""

    def uri(scheme: str) -> str:
        content = base64.b64encode((folder / file_name(name, scheme)).read_bytes()).decode("ascii")
        return f"data:image/png;base64,{content}"

    return {scheme: uri(scheme) for scheme in SCHEMES}


def words(name: str) -> str:
    """A figure's or gate's name as a person writes it: `min_psnr_db` as "min PSNR dB"."""
    return " ".join(_UNITS.get(word, word) for word in name.split("_"))


def step_log(path: Path | None) -> list[dict[str, Any]]:
    """A training's steps from a JSON list of them (or a mapping whose `steps` is that list); none without a file."""
    if path is None:
        return []
    content = json.loads(path.read_text("utf-8"))
    return content if isinstance(content, list) else content["steps"]


def training_facts(steps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Steps, tokens, time, speed and peak memory of a training log, ready to print; empty for an empty log."""
    if not steps:
        return {}
    tokens = sum(step.get("tokens", 0) for step in steps)
    seconds = sum(step.get("seconds", 0.0) for step in steps)
    facts = {"steps": f"{len(steps):,}", "tokens": f"{tokens:,}", "time": _duration(seconds)}
    if seconds:
        facts["tokens a second"] = f"{tokens / seconds:,.0f}"
    if peak := max(step.get("megabytes", 0.0) for step in steps):
        facts["peak memory"] = f"{peak:,.0f} MB"
    return facts


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def summary(title: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's report as facts (its numbers), counts (mappings of name to number) and tables (of name to numbers)."""
    shown: dict[str, Any] = {"title": title, "facts": _numbers(content), "counts": {}, "tables": {}}
    for name, value in content.items():
        if not isinstance(value, dict):
            continue
        if counts := _numbers(value):
            shown["counts"][name] = dict(sorted(counts.items(), key=lambda pair: -pair[1]))
        rows = {row: _numbers(cells) for row, cells in value.items() if isinstance(cells, dict)}
        if columns := list(dict.fromkeys(column for cells in rows.values() for column in cells)):
            shown["tables"][name] = {"columns": columns, "rows": rows}
    return shown


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    numbers = ((name, value) for name, value in content.items() if not isinstance(value, bool))
    return {name: value for name, value in numbers if isinstance(value, int | float)}
