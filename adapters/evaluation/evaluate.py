"""Test a candidate on held-out records against other systems, and judge it by the gates of its recipe.

The systems answer the same items: `candidate`, `baseline` (palettized base + recovery adapter), where there is one
`production`, and `full_precision` (the uncompressed base, for the record: no gate looks at it). Beside them stand the
trivial systems, which answer without a model. Each system's answers are written once (answers.py), so an evaluation of
stored answers costs seconds.

The code key of an evaluation follows this module's imports, so what only draws or prints lies elsewhere (report.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from adapters.evaluation.answers import ANSWERS, read_answers
from adapters.evaluation.gates import GateReport
from adapters.evaluation.items import read_items
from adapters.evaluation.judge import judge
from adapters.evaluation.metrics_style import learn_style
from adapters.evaluation.scores import score
from adapters.evaluation.trivial import trivial_answers
from adapters.inference.types import Answer
from adapters.recipe import Recipe
from adapters.records import read_records
from infra.canonical import canonical_json

SYSTEMS = ("full_precision", "baseline", "production", "candidate")


def write_evaluation(
    recipe: Recipe,
    held_out: Path,
    systems: Mapping[str, Path],
    measured: Mapping[str, float],
    output: Path,
    training: Path | None = None,
) -> GateReport:
    """Score and judge the answers of `systems` (a name of `SYSTEMS` → the folder that `write_answers` filled).

    `measured` are figures of the adapter itself, `adapter_mb` at least; from the records in `training` the style of a
    rewriting feature's targets is learnt. Writes `gates.json`, `scores.json` (metric,
    names of the trivial systems, and per system the fields of `Scores`) and `samples.jsonl` (per item id, use_case,
    input, references, and by system the answers and scores).
    """
    chosen = read_items(recipe, held_out)
    metric = recipe.evaluation.metric
    trivial = trivial_answers(metric, chosen)
    answers = {name: [Answer(text, 0, 0.0, True) for text in texts] for name, texts in trivial.items()}
    answers |= {name: read_answers(systems[name] / ANSWERS, chosen) for name in SYSTEMS if name in systems}
    style = None
    if metric == "sari" and training is not None:
        style = learn_style(recipe.data.use_cases, read_records(training)[0])
    scores_of = {name: score(recipe, chosen, given, style) for name, given in answers.items()}
    report = judge(recipe, chosen, scores_of, list(trivial), measured)
    (output / "gates.json").write_text(report.to_json(), "utf-8")
    by_system = {name: asdict(scores) for name, scores in scores_of.items()}
    summary = {"metric": metric, "trivial": list(trivial), "systems": by_system}
    (output / "scores.json").write_bytes(canonical_json(summary))
    rows = (
        {
            "id": item.id,
            "use_case": item.use_case,
            "input": item.input,
            "references": item.targets,
            "answers": {name: given[index].text for name, given in answers.items()},
            "scores": {name: scores.per_item[metric][index] for name, scores in scores_of.items()},
        }
        for index, item in enumerate(chosen)
    )
    _write_lines(output / "samples.jsonl", rows)
    return report


def _write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
