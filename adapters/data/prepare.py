"""The data stage: from a feature's raw records to the ones that it is trained and tested on.

Output folder: `training.jsonl` (labelled), `unlabelled.jsonl` (for synthesis), `held_out.jsonl`, `quarantine.jsonl`
(refused rows, each with its reason), `report.json` and `data_docs/` (HTML).

The lineage key of the data covers the training side only, so nothing on that side may depend on a held-out record:
equal inputs are on the same side by construction, and of two records with one id the held-out one goes. Held-out
records without a target are set aside: nobody may train on them, since a target may still come.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from adapters.data.expectations import Checkpoints, Failure, RowValidation, Verdict
from adapters.recipe import Recipe
from adapters.records import Quarantined, Record, is_held_out, split_held_out, write_records
from infra.canonical import canonical_json
from infra.errors import CheckFailed

_REASONS_SHOWN = 10


def prepare(
    recipe: Recipe, records: Sequence[Record], refused: Sequence[Quarantined], output: Path, scratch: Path
) -> None:
    """Validate, quarantine and split `records`; `refused` are rows that are no records and count as quarantined.

    Raises:
        CheckFailed: too much is quarantined, or what is left does not cover a use case or a label. The output is then
            in `scratch/failed`.
    """
    section = recipe.data
    records = sorted(records, key=lambda record: (_precedence(record, section.held_out_share), record.id))
    checkpoints = Checkpoints(recipe.feature, section, output / "data_docs")
    rows = checkpoints.check_rows(records)
    refusals = _refusals(records, rows)
    kept = [record for position, record in enumerate(records) if position not in refusals]
    coverage = checkpoints.check_coverage(kept)

    quarantine = [*refused, *(_quarantined(records[position], refusals[position]) for position in sorted(refusals))]
    training, held_out = split_held_out(kept, section.held_out_share)
    sides = {
        "training": [record for record in training if record.target is not None],
        "unlabelled": [record for record in training if record.target is None],
        "held_out": [record for record in held_out if record.target is not None],
    }
    for side, members in sides.items():
        write_records(output / f"{side}.jsonl", members)
    lines = [canonical_json(asdict(row)) + b"\n" for row in quarantine]
    (output / "quarantine.jsonl").write_bytes(b"".join(lines))

    problems = _problems(recipe, sides, coverage, len(quarantine), len(records) + len(refused))
    reasons = Counter(failure.what for failures in refusals.values() for failure in failures)
    report = {
        "feature": recipe.feature,
        "rows": len(records) + len(refused),
        "quarantined": len(quarantine),
        "use_cases": {
            name: {side: sum(record.use_case == name for record in members) for side, members in sides.items()}
            for name in section.use_cases
        },
        "reasons": dict(reasons + Counter({"not a record": len(refused)})),
        "expectations": [asdict(verdict) for verdict in (*rows.verdicts, *coverage)],
        "problems": problems,
    }
    (output / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if problems:
        failed = scratch / "failed"
        shutil.rmtree(failed, ignore_errors=True)
        shutil.copytree(output, failed)
        raise CheckFailed(_message(recipe.feature, problems, quarantine, failed))


def _precedence(record: Record, held_out_share: float) -> tuple[bool, bool]:
    """Which of two records with the same id or input stays: the lower; the held-out one never pushes another out."""
    return is_held_out(record, held_out_share), record.target is None


def _refusals(records: Sequence[Record], rows: RowValidation) -> dict[int, list[Failure]]:
    """Why records are refused, by position. Of records that repeat each other the first sound one stays."""
    refusals: dict[int, list[Failure]] = {}
    for failure in rows.failures:
        refusals.setdefault(failure.position, []).append(failure)
    first: dict[tuple[str, str], int] = {}
    for failure in sorted(rows.repeated, key=lambda failure: failure.position):
        if failure.position in refusals:
            continue
        stays = first.setdefault((failure.what, failure.found), failure.position)
        if stays != failure.position:
            found = f"record {records[stays].id!r}"
            refusals[failure.position] = [Failure(failure.position, failure.what, failure.expected, found)]
    return refusals


def _quarantined(record: Record, failures: Sequence[Failure]) -> Quarantined:
    reasons = (f"{failure.what}: expected {failure.expected}, found {failure.found}" for failure in failures)
    return Quarantined(record.id, "; ".join(reasons), record.model_dump_json())


def _problems(
    recipe: Recipe, sides: dict[str, list[Record]], coverage: Sequence[Verdict], quarantined: int, rows: int
) -> list[str]:
    """What stops the feature, in words; nothing if all is well."""
    section = recipe.data
    problems = [
        f"{verdict.what}: expected {verdict.expected}, found {verdict.found}"
        for verdict in coverage
        if not verdict.passed
    ]
    if rows and quarantined / rows > section.max_quarantined_share:
        allowed = f"data.max_quarantined_share is {section.max_quarantined_share:.0%}"
        problems.append(f"{quarantined} of {rows} rows are quarantined; {allowed}")
    trainable = sides["training"] + (sides["unlabelled"] if recipe.synthesis is not None else [])
    for name in sorted(section.use_cases.keys() - {record.use_case for record in trainable}):
        if any(record.use_case == name for members in sides.values() for record in members):
            problems.append(f"use case {name}: no record to train on; add some with targets")
    return problems


def _message(feature: str, problems: Sequence[str], quarantine: Sequence[Quarantined], failed: Path) -> str:
    lines = [f"{feature}: the data fails its checks", *(f"  {problem}" for problem in problems)]
    if quarantine:
        lines.append(f"  quarantined, {min(len(quarantine), _REASONS_SHOWN)} of {len(quarantine)}:")
        lines += [f"    {row.where}: {row.reason}" for row in quarantine[:_REASONS_SHOWN]]
    lines.append(f"  everything is in {failed}")
    return "\n".join(lines)
