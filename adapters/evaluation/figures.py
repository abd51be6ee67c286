"""The pictures of a report, in a light and a dark variant: scores by use case and the training curve.

Colours are told apart by lightness as well as by hue (blue against amber, greys beside them), and every bar and line is
labelled where it stands. Matplotlib is imported only when something is drawn.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.evaluation.interval import Interval

Scheme = Mapping[str, str]

SCHEMES: dict[str, Scheme] = {
    "light": {
        "paper": "#ffffff", "ink": "#1d2530", "quiet": "#5f6b7a", "line": "#d9dee5",
        "full_precision": "#c3cad3", "baseline": "#8a95a3", "production": "#d98f2b", "candidate": "#1f62b0",
        "trivial": "#e8ebef",
    },
    "dark": {
        "paper": "#1a212b", "ink": "#e6ebf1", "quiet": "#9aa7b6", "line": "#333d4a",
        "full_precision": "#4d5866", "baseline": "#7d8a9a", "production": "#e0a24a", "candidate": "#6aaaf0",
        "trivial": "#333d4a",
    },
}  # fmt: skip
NAMES = {
    "candidate": "candidate",
    "production": "production",
    "baseline": "base",
    "full_precision": "full precision",
    "first_two_lines": "first two lines",
    "first_60_words": "first 60 words",
    "subject_and_first_sentence": "subject and first sentence",
    "unchanged": "left as it is",
    "most_frequent": "most frequent label",
}


def file_name(name: str, scheme: str) -> str:
    """`scores.png` for the light variant, `scores-dark.png` for the dark one."""
    return f"{name}.png" if scheme == "light" else f"{name}-{scheme}.png"


def draw_scores(
    scores: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, Interval]],
    metric: str,
    folder: Path,
) -> None:
    """Bars of each system's score by group, beside the intervals of candidate minus other systems.

    `scores` maps a system to its scores by group (a use case, or the whole), `intervals` the groups to differences by
    the other system's name.
    """
    systems = [system for system in NAMES if system in scores]
    groups = list(intervals)
    pitch, middle = len(systems) + 1.1, (len(systems) - 1) / 2
    highest = max(scores[system][group] for system in systems for group in groups)
    for name, scheme in SCHEMES.items():
        figure, (bars, differences) = canvas(
            scheme, height=0.9 + 0.27 * pitch * len(groups), ncols=2, width_ratios=(1.7, 1), sharey=True
        )
        for row, group in enumerate(groups):
            for place, system in enumerate(systems):
                value, y = scores[system][group], row * pitch + place
                bars.barh(y, value, height=0.86, color=_colour(scheme, system))
                bold = "bold" if system == "candidate" else "normal"
                bars.annotate(
                    f"{value:.3f}  {NAMES[system]}", (value, y), (5, 0), textcoords="offset points",
                    va="center", fontsize=9, color=scheme["ink"], weight=bold,
                )  # fmt: skip
            apart = len(systems) / len(intervals[group])
            for place, (other, difference) in enumerate(intervals[group].items()):
                y = row * pitch + (place + 0.5) * apart - 0.5
                _draw_interval(differences, y, difference, f"− {NAMES[other]}", scheme)
        plain(bars, scheme, None)
        plain(differences, scheme, "x")
        bars.set_yticks(
            [row * pitch + middle for row in range(len(groups))], groups, fontsize=10.5, color=scheme["ink"]
        )
        bars.set_ylim(len(groups) * pitch - 0.8, -0.8)
        bars.set_xlim(0, max(highest, 0.01) * 1.42)
        bars.set_title(metric, loc="left", fontsize=10.5, color=scheme["quiet"])
        differences.set_title("candidate − other, 95%", loc="left", fontsize=10.5, color=scheme["quiet"])
        differences.margins(x=0.22)
        differences.axvline(0, color=scheme["quiet"], linewidth=1, zorder=0)
        save(figure, folder / file_name("scores", name))


def _colour(scheme: Scheme, system: str) -> str:
    return scheme.get(system, scheme["trivial"])


def _draw_interval(axes: Any, y: float, difference: Interval, words: str, scheme: Scheme) -> None:
    # Hollow: the interval holds zero, so the difference may be chance.
    certain = difference.low > 0 or difference.high < 0
    colour = scheme["candidate"]
    axes.plot([difference.low, difference.high], [y, y], color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot(
        difference.value, y, "o", markersize=8, markeredgewidth=2, markeredgecolor=colour,
        markerfacecolor=colour if certain else scheme["paper"],
    )  # fmt: skip
    axes.annotate(
        f"{difference.value:+.3f} {words}", (difference.value, y), (0, 7), textcoords="offset points",
        ha="center", fontsize=8, color=scheme["ink"],
        bbox={"facecolor": scheme["paper"], "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip


def draw_training(log: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The loss of each step as a thin line, its running mean over a tenth of the training as a thick one.

    Where the log has a `held_out_loss`, a ring stands for it.
    """
    steps, losses = [step["step"] for step in log], [step["loss"] for step in log]
    judged = [(step["step"], step["held_out_loss"]) for step in log if step.get("held_out_loss") is not None]
    title = ["training loss by step", *(["ringed: on held-out examples"] if judged else [])]
    window = max(len(losses) // 10, 1)
    smooth = [sum(losses[max(i - window + 1, 0) : i + 1]) / len(losses[max(i - window + 1, 0) : i + 1])
              for i in range(len(losses))]  # fmt: skip
    for name, scheme in SCHEMES.items():
        figure, axes = canvas(scheme, height=2.9)
        axes.plot(steps, losses, color=scheme["baseline"], linewidth=0.9, alpha=0.75)
        axes.plot(steps, smooth, color=scheme["candidate"], linewidth=2.2)
        axes.plot(steps[-1], smooth[-1], "o", color=scheme["candidate"], markersize=6)
        axes.annotate(
            f"{smooth[-1]:.3f}", (steps[-1], smooth[-1]), (9, 0), textcoords="offset points",
            va="center", fontsize=10, weight="bold", color=scheme["candidate"], annotation_clip=False,
        )  # fmt: skip
        for step, loss in judged:
            axes.plot(
                step, loss, "o", markersize=6, markeredgewidth=1.8, markeredgecolor=scheme["production"],
                markerfacecolor=scheme["paper"],
            )  # fmt: skip
        axes.margins(x=0.01)
        words = "; ".join([*title, f"thick: mean of {window} steps"])
        axes.set_title(words, loc="left", fontsize=10.5, color=scheme["quiet"])
        plain(axes, scheme, "y")
        save(figure, folder / file_name("training", name))


def canvas(scheme: Scheme, height: float, **layout: Any) -> tuple[Any, Any]:
    """A figure and its axes that belong to no window and no global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, height), dpi=160, facecolor=scheme["paper"], layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**layout)


def plain(axes: Any, scheme: Scheme, grid: str | None) -> None:
    """Take the frame away; `grid` names the axis whose values are to be read off, None where all are labelled."""
    axes.set_facecolor(scheme["paper"])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(axis="both", length=0, labelcolor=scheme["quiet"], labelsize=9)
    if grid is None:
        axes.set_xticks([])
    else:
        axes.grid(axis=grid, color=scheme["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.locator_params(axis=grid, nbins=5)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without matplotlib's version in it, equal pictures are equal files.
    figure.savefig(path, metadata={"Software": None})
