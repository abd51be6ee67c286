"""The page to choose a budget from: quality against bits per weight, and which layers get the bits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.evaluation.figures import SCHEMES, canvas, file_name, plain, save
from adapters.evaluation.pages import embedded, render

_SHOWN_ALLOCATIONS = 4


def write_tradeoff_report(tradeoff: Mapping[str, Any], current: Mapping[str, float], output: Path) -> None:
    """Write `tradeoff.html` and its pictures into the folder `output`.

    `tradeoff` is the content of `tradeoff.json`; `current` holds the figures of the release in use, or nothing.
    """
    points = tradeoff["points"]
    draw_curve(points, current, output / "figures")
    draw_allocations(points, output / "figures")
    page = {
        "points": points,
        "full": tradeoff["base_perplexity"],
        "current": current,
        "curve": embedded(output / "figures", "curve"),
        "allocations": embedded(output / "figures", "allocations"),
    }
    (output / "tradeoff.html").write_text(render("tradeoff.html", page), "utf-8")


def draw_curve(points: Sequence[Mapping[str, Any]], current: Mapping[str, float], folder: Path) -> None:
    """KL and top-1 agreement against bits per weight; the release in use as points of their own."""
    bits = [point["bits_per_weight"] for point in points]
    for name, scheme in SCHEMES.items():
        figure, (left, right) = canvas(scheme, height=3.4, ncols=2)
        # The free side of each curve: names of its points, and of the release in use, stand there.
        sides = (
            (left, "kl", "KL to full precision, nats per token", (3, 6), (-8, -3), "right"),
            (right, "top1", "top-1 agreement", (5, -13), (8, -3), "left"),
        )
        for axes, key, title, above, beside, align in sides:
            values = [point[key] for point in points]
            axes.plot(bits, values, "o-", color=scheme["candidate"], linewidth=2, markersize=4.5)
            for x, y in zip(bits[::2], values[::2], strict=True):
                axes.annotate(f"{y:.2f}", (x, y), above, textcoords="offset points", fontsize=8.5, color=scheme["ink"])
            for step, colour, lower in (("recovered", "production", 0), ("palettized", "baseline", 9)):
                if f"{key}_{step}" in current:
                    place = current["bpw_linear"], current[f"{key}_{step}"]
                    axes.plot(*place, "D", color=scheme[colour], markersize=7)
                    offset = beside[0], beside[1] - (lower if axes is right else 0)
                    axes.annotate(
                        f"in use, {step}", place, offset, textcoords="offset points", ha=align,
                        fontsize=8.5, color=scheme[colour],
                    )  # fmt: skip
            axes.set_title(title, loc="left", fontsize=10.5, color=scheme["quiet"])
            axes.set_xlabel("bits per weight, linear layers", fontsize=9, color=scheme["quiet"])
            plain(axes, scheme, "both")
            axes.margins(x=0.12, y=0.12)
        left.set_yscale("log")
        left.minorticks_off()
        save(figure, folder / file_name("curve", name))


def draw_allocations(points: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Bits of each projection (rows) in each layer (columns), for some of the points."""
    from matplotlib.colors import LinearSegmentedColormap

    step = max((len(points) - 1) / (_SHOWN_ALLOCATIONS - 1), 1)
    shown = [points[round(place * step)] for place in range(min(_SHOWN_ALLOCATIONS, len(points)))]
    for name, scheme in SCHEMES.items():
        colours = LinearSegmentedColormap.from_list("bits", [scheme["line"], scheme["candidate"]])
        figure, grid = canvas(scheme, height=2.1 * len(shown), nrows=len(shown), squeeze=False)
        for axes, point in zip(grid[:, 0], shown, strict=True):
            kinds, rows = bits_by_layer(point["formats"])
            axes.imshow(rows, cmap=colours, vmin=1, vmax=6, aspect="auto")
            for y, row in enumerate(rows):
                for x, value in enumerate(row):
                    colour = scheme["paper"] if value > 3 else scheme["ink"]
                    axes.text(x, y, str(value), ha="center", va="center", fontsize=7, color=colour)
            plain(axes, scheme, None)
            axes.set_yticks(range(len(kinds)), kinds, fontsize=8.5, color=scheme["ink"])
            axes.set_title(
                f"{point['bits_per_weight']:.2f} bits per weight: bits by projection and layer",
                loc="left", fontsize=10.5, color=scheme["quiet"],
            )  # fmt: skip
        save(figure, folder / file_name("allocations", name))


def bits_by_layer(formats: Mapping[str, Sequence[int]]) -> tuple[list[str], list[list[int]]]:
    """The projections, and for each the bits in layer 0, 1, …; `formats` is a point's."""
    table: dict[str, list[int]] = {}
    for name, (bits, _) in formats.items():  # in the order of the layers
        table.setdefault(name.split(".")[-1].removesuffix("_proj"), []).append(bits)
    return list(table), list(table.values())
