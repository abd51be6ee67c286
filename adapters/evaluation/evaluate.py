"""Test a candidate on held-out records against other systems, and judge it by the gates of its recipe.

The systems answer the same items: `candidate`, `baseline` (palettized base + recovery adapter), and where there is one
`production` and `full_precision` (the uncompressed base, for the record: no gate looks at it). Each system's answers
are written once, so an evaluation of stored answers costs seconds.

Notable choices:
- The score of a feature is the mean over its use cases, however many items each has; macro-F1 is taken over all items.
- The gates judge the feature as a whole; the scores of use cases and the bootstrap interval inform a person.
- The code key of an evaluation follows this module's imports, so what only draws or prints lies elsewhere (report.py).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.evaluation.gates import Gate, GateReport, at_least, at_most, better_than
from adapters.evaluation.metrics import NO_LABEL, macro_f1, parse_label, rouge_l, sari
from adapters.evaluation.statistics import Interval, Weights, interval, resample, weighted_macro_f1, weighted_mean
from adapters.inference.types import Answer, Prompt, Sampling, TextGenerator
from adapters.recipe import Recipe
from adapters.records import Record, read_records
from infra.canonical import canonical_json, digest
from infra.errors import FactoryError
from infra.progress import track

SYSTEMS = ("full_precision", "baseline", "production", "candidate")
_BOOTSTRAP_SEED = 0
# SARI pays an empty answer for all that it rightly deletes, which can beat a poor baseline: so emptiness is a gate of
# its own. A few more empty answers than the baseline's are chance.
_MORE_EMPTY_ANSWERS = 0.05


@dataclass(frozen=True)
class Scores:
    """How well one system answered: all scores in [0, 1], `per_item` and `labels` in the order of the items.

    `counts` are the items per use case; `labels` the labels read from the answers (macro-F1 only, else empty); `empty`
    the answers that say nothing or, from a classifier, hold no allowed label.
    """

    overall: float
    use_cases: dict[str, float]
    per_item: list[float]
    counts: dict[str, int]
    labels: list[str]
    empty: int


def items(recipe: Recipe, held_out: Sequence[Record]) -> list[Record]:
    """The records to test on: up to `items_per_use_case` of each use case, in the order of a digest of their content.

    The digest chooses at random but always alike: more data changes the choice only by what comes in.

    Raises:
        FactoryError: a use case has no held-out record with a target, so nothing would test it.
    """
    chosen: list[Record] = []
    for use_case in recipe.data.use_cases:
        of_case = [record for record in held_out if record.use_case == use_case and record.targets]
        if not of_case:
            raise FactoryError(f"{recipe.feature}: use case {use_case} has no held-out record; add labelled records")
        of_case.sort(key=lambda record: (digest([record.use_case, record.input]), record.id))
        chosen += of_case[: recipe.evaluation.items_per_use_case]
    return chosen


def answer(
    generator: TextGenerator,
    recipe: Recipe,
    items: Sequence[Record],
    on_progress: Callable[[int], None] | None = None,
) -> list[str]:
    """One greedy answer per item, in order; `on_progress(1)` is called as each is done."""

    def done(index: int, answers: list[Answer]) -> None:
        if on_progress is not None:
            on_progress(1)

    texts: dict[str, str] = {}
    limits = [recipe.data.use_cases[item.use_case].max_new_tokens for item in items]
    # Use cases with the same limit are answered together: with more rows side by side the weights are read less often.
    for limit in sorted(set(limits)):
        some = [item for item, own in zip(items, limits, strict=True) if own == limit]
        prompts = [Prompt(recipe.data.system, recipe.data.use_cases[item.use_case].ask(item.input)) for item in some]
        answers = generator.generate(prompts, Sampling(limit), done)
        texts |= {item.id: candidates[0].text.strip() for item, candidates in zip(some, answers, strict=True)}
    return [texts[item.id] for item in items]


def score(recipe: Recipe, items: Sequence[Record], answers: Sequence[str]) -> Scores:
    """Score the answers, one per item, by the recipe's metric."""
    metric = recipe.evaluation.metric
    labels: list[str] = []
    if metric == "macro_f1":
        labels = [parse_label(text, recipe.data.labels or []) for text in answers]
        per_item = [float(label == item.targets[0]) for item, label in zip(items, labels, strict=True)]
    elif metric == "rouge_l":
        per_item = [rouge_l(text, item.targets) for item, text in zip(items, answers, strict=True)]
    else:
        per_item = [sari(item.input, text, item.targets) for item, text in zip(items, answers, strict=True)]
    said = labels if metric == "macro_f1" else [text.strip() for text in answers]
    everyone = np.ones((1, len(items)))
    by_use_case = {name: float(_slice_scores(items, per_item, labels, everyone, name)[0]) for name in _use_cases(items)}
    if metric == "macro_f1":
        overall = macro_f1([item.targets[0] for item in items], labels)
    else:
        overall = sum(by_use_case.values()) / len(by_use_case)
    counts = {name: sum(item.use_case == name for item in items) for name in by_use_case}
    return Scores(overall, by_use_case, per_item, counts, labels, sum(text == NO_LABEL for text in said))


def differences(items: Sequence[Record], one: Scores, other: Scores) -> dict[str, Interval]:
    """`one` minus `other` with a paired 95% bootstrap interval: the whole under "", each use case under its name."""
    clusters = [" ".join(item.input.split()).casefold() for item in items]
    weights = resample([item.use_case for item in items], clusters, _BOOTSTRAP_SEED)
    names = _use_cases(items)

    def resampled(scores: Scores) -> dict[str, NDArray[np.float64]]:
        slices = {name: _slice_scores(items, scores.per_item, scores.labels, weights, name) for name in names}
        if scores.labels:
            truth = [item.targets[0] for item in items]
            return {**slices, "": weighted_macro_f1(weights, truth, scores.labels)}
        return {**slices, "": np.mean(list(slices.values()), axis=0)}

    ours, theirs = resampled(one), resampled(other)
    measured = {name: one.use_cases[name] - other.use_cases[name] for name in names}
    measured[""] = one.overall - other.overall
    return {name: interval(measured[name], ours[name] - theirs[name]) for name in ["", *names]}


def _use_cases(items: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(item.use_case for item in items))


def _slice_scores(
    items: Sequence[Record], per_item: Sequence[float], labels: Sequence[str], weights: Weights, use_case: str
) -> NDArray[np.float64]:
    """One use case's score under each row of `weights` [r, n]: [r]."""
    chosen = [index for index, item in enumerate(items) if item.use_case == use_case]
    if labels:
        truth = [items[index].targets[0] for index in chosen]
        return weighted_macro_f1(weights[:, chosen], truth, [labels[index] for index in chosen])
    return weighted_mean(weights[:, chosen], [per_item[index] for index in chosen])


def judge(recipe: Recipe, items: Sequence[Record], scores_of: Mapping[str, Scores], adapter_mb: float) -> GateReport:
    """Hold the candidate against the baseline (score, empty answers), production (if there) and the size budget.

    Figures: `<system>` and `<system>/<use case>` are scores, `<system>_empty` counts of empty answers, `difference`,
    `difference_low` and `difference_high` (each also `/<use case>`) candidate minus baseline with its interval.
    """
    candidate, baseline = scores_of["candidate"], scores_of["baseline"]
    margins = recipe.evaluation.gates
    gates: list[Gate] = [
        better_than("better_than_baseline", candidate.overall, baseline.overall, margins.better_than_baseline_by)
    ]
    empty_allowed = baseline.empty / len(items) + _MORE_EMPTY_ANSWERS
    gates.append(at_most("empty_answers_share", candidate.empty / len(items), empty_allowed))
    if "production" in scores_of:
        floor = scores_of["production"].overall - margins.worse_than_production_by
        gates.append(at_least("not_worse_than_production", candidate.overall, floor))
    gates.append(at_most("size_budget_mb", adapter_mb, recipe.device.max_adapter_mb))

    figures: dict[str, float] = {"adapter_mb": adapter_mb}
    for system, scores in scores_of.items():
        figures |= {system: scores.overall, f"{system}_empty": scores.empty}
        figures |= {f"{system}/{use_case}": value for use_case, value in scores.use_cases.items()}
    for name, difference in differences(items, candidate, baseline).items():
        suffix = f"/{name}" if name else ""
        figures[f"difference{suffix}"] = difference.value
        figures[f"difference_low{suffix}"] = difference.low
        figures[f"difference_high{suffix}"] = difference.high
    return GateReport(recipe.feature, gates, figures)


def write_answers(generator: TextGenerator, recipe: Recipe, held_out_path: Path, output: Path) -> None:
    """Answer the items of a held-out file into `output/answers.jsonl`: rows of id, use_case, answer."""
    chosen = items(recipe, _held_out(held_out_path))
    with track(f"{recipe.feature}: answers", len(chosen)) as step:
        texts = answer(generator, recipe, chosen, step.advance)
    rows = (
        {"id": item.id, "use_case": item.use_case, "answer": text} for item, text in zip(chosen, texts, strict=True)
    )
    _write_lines(output / "answers.jsonl", rows)


def read_answers(path: Path, items: Sequence[Record]) -> list[str]:
    """The answers of `path`, one per item, in the order of the items.

    Raises:
        FactoryError: an item has no answer there, so the answers are of other held-out records.
    """
    with path.open(encoding="utf-8") as file:
        by_id = {row["id"]: str(row["answer"]) for row in map(json.loads, file)}
    missing = [item.id for item in items if item.id not in by_id]
    if missing:
        raise FactoryError(f"{path}: no answer to {missing[0]} and {len(missing) - 1} more; answer the items again")
    return [by_id[item.id] for item in items]


def write_evaluation(
    recipe: Recipe, held_out_path: Path, systems: Mapping[str, Path], adapter_mb: float, output: Path
) -> GateReport:
    """Score and judge the answers of `systems` (a name of `SYSTEMS` → the folder that `write_answers` filled).

    Writes `gates.json`, `scores.json` (metric, and per system the fields of `Scores`) and `samples.jsonl` (per item id,
    use_case, input, references, and by system the answers and scores).
    """
    chosen = items(recipe, _held_out(held_out_path))
    ordered = [name for name in SYSTEMS if name in systems]
    answers = {name: read_answers(systems[name] / "answers.jsonl", chosen) for name in ordered}
    scores_of = {name: score(recipe, chosen, texts) for name, texts in answers.items()}
    report = judge(recipe, chosen, scores_of, adapter_mb)
    (output / "gates.json").write_text(report.to_json(), "utf-8")
    by_system = {name: asdict(scores) for name, scores in scores_of.items()}
    (output / "scores.json").write_bytes(canonical_json({"metric": recipe.evaluation.metric, "systems": by_system}))
    rows = (
        {
            "id": item.id,
            "use_case": item.use_case,
            "input": item.input,
            "references": item.targets,
            "answers": {name: answers[name][index] for name in ordered},
            "scores": {name: scores_of[name].per_item[index] for name in ordered},
        }
        for index, item in enumerate(chosen)
    )
    _write_lines(output / "samples.jsonl", rows)
    return report


def _held_out(path: Path) -> list[Record]:
    records, refused = read_records(path)
    if refused:
        raise FactoryError(
            f"{refused[0].where}: {refused[0].reason}; held-out records must be clean, prepare them again"
        )
    return records


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
