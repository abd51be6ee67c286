"""A picture of a synthesis report: what becomes of the candidates of use cases and teachers, and what filters stop."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"chosen": "#2a9d8f", "passed": "#a8d5ba", "rejected": "#d9d9d9"}


def acceptance_picture(report: Mapping[str, Any]) -> "Figure":
    """Shares of candidates that were chosen, passed and were rejected; and rejections by filter."""
    from matplotlib.figure import Figure

    groups = {**report["use_cases"], **{f"by {name}": counts for name, counts in report["teachers"].items()}}
    filters = sorted(report["reasons"].items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 1.5 + 0.3 * (len(groups) + len(filters))), layout="constrained")
    shares, stopped = figure.subplots(2, 1, height_ratios=[len(groups) + 1, len(filters) + 1])
    names = list(groups)[::-1]
    left = [0.0] * len(names)
    for part, colour in _COLOURS.items():
        values = [_share(groups[name], part) for name in names]
        shares.barh(names, values, left=left, color=colour, label=part)
        left = [start + value for start, value in zip(left, values, strict=True)]
    shares.set_xlim(0, 1)
    shares.set_title("candidates")
    shares.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    candidates = max(report["candidates"], 1)
    stopped.barh([name for name, _ in filters], [count / candidates for _, count in filters], color="#577590")
    stopped.set_title("share of candidates that a filter stops")
    return figure


def _share(counts: Mapping[str, Any], part: str) -> float:
    passed, chosen = counts["candidates_passed"], counts["accepted"]
    amounts = {"chosen": chosen, "passed": passed - chosen, "rejected": counts["candidates"] - passed}
    return float(amounts[part] / max(counts["candidates"], 1))
