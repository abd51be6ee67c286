"""The data stage: from a feature's raw records to the ones that it is trained and tested on.

Output folder: `training.jsonl` (labelled), `unlabelled.jsonl` (for synthesis), `held_out.jsonl`, `quarantine.jsonl`
(refused rows, each with its reason), `removed.jsonl` (what cleaning took out, each with step and reason), `report.json`
and `data_docs/` (HTML).

The lineage key of the data covers the training side only, so nothing on that side may depend on a held-out record.
The side is decided by the raw input, before anything is cleaned. Of two records with one id, equal or nearly equal
inputs or a shared n-gram, one on each side, the held-out one goes. Held-out records without a target are set aside:
nobody may train on them, since a target may still come.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.data.cleaning import Cleaned, Removed, Step, clean
from adapters.data.expectations import DATA_DOCS, Checkpoints, Failure, Validation
from adapters.data.overlap import Overlap, remove_overlap
from adapters.recipe import Recipe
from adapters.records import Quarantined, Record, is_held_out, read_records, write_records
from infra.canonical import canonical_json
from infra.errors import CheckFailed

_REASONS_SHOWN = 10


def prepare(
    recipe: Recipe,
    records: Sequence[Record],
    refused: Sequence[Quarantined],
    output: Path,
    scratch: Path,
    evaluation_texts: Sequence[tuple[str, str]] = (),
) -> None:
    """Validate, clean and split `records`; `refused` are rows that are no records and count as quarantined.

    `evaluation_texts` are pairs of name and text: what nothing may be trained on.

    Raises:
        CheckFailed: too much is quarantined, or what is left fails a critical expectation. The output is then in
            `scratch/failed`.
    """
    section = recipe.data
    records = sorted(records, key=lambda record: (_precedence(record, section.held_out_share), record.id))
    checkpoints = Checkpoints(recipe.feature, section, output / DATA_DOCS)
    raw = checkpoints.check("raw", records)
    sound, quarantined, same_ids = _sorted_out(records, raw)
    quarantined += [(record, [failure]) for record, failure in same_ids]
    # Before cleaning, which changes the text that decides.
    held_out = {record.id for record in sound if is_held_out(record, section.held_out_share)}
    cleaned = clean(sound, section.cleaning)
    checked = checkpoints.check("cleaned", cleaned.records)
    kept, more, repeats = _sorted_out(cleaned.records, checked)
    _remove_repeats(cleaned, repeats)
    overlap = remove_overlap(kept, held_out, section.cleaning, evaluation_texts)
    used = checkpoints.check("training", overlap.records, held_out=held_out)

    quarantine = [*refused, *(_quarantined(record, failures) for record, failures in (*quarantined, *more))]
    removed = [*cleaned.removed, *overlap.removed]
    sides = _sides(overlap.records, held_out)
    _write(output, sides, quarantine, removed)
    problems = [verdict.problem for verdict in (*raw.critical, *checked.critical, *used.critical)]
    problems += _problems(recipe, sides, len(quarantine), len(records) + len(refused))
    reasons = Counter(failure.what for _, failures in (*quarantined, *more) for failure in failures)
    report: dict[str, Any] = {
        "feature": recipe.feature,
        "rows": len(records) + len(refused),
        "quarantined": len(quarantine),
        "removed": len(removed),
        "use_cases": {
            name: {side: sum(record.use_case == name for record in members) for side, members in sides.items()}
            for name in section.use_cases
        },
        "reasons": dict(reasons + Counter({"not a record": len(refused)})),
        **_steps(cleaned.report(), overlap),
        "expectations": [asdict(verdict) for verdict in (*raw.verdicts, *checked.verdicts, *used.verdicts)],
        "problems": problems,
    }
    (output / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if problems:
        raise CheckFailed(_message(recipe.feature, problems, quarantine, _keep(output, scratch)))


def check_synthetic(recipe: Recipe, data: Path, synthesis: Path, scratch: Path) -> None:
    """Check the records that a teacher completed, in `synthesis/accepted.jsonl`, against the folder `data` that
    `prepare` filled; Data Docs go into `synthesis/data_docs`.

    Raises:
        CheckFailed: a critical expectation fails, each named. The folder `synthesis` is then in `scratch/failed`.
    """
    accepted = read_records(synthesis / "accepted.jsonl")[0]
    if not accepted:
        return
    unlabelled = {record.id for record in read_records(data / "unlabelled.jsonl")[0]}
    checkpoints = Checkpoints(recipe.feature, recipe.data, synthesis / DATA_DOCS)
    critical = checkpoints.check("synthetic", accepted, unlabelled=unlabelled).critical
    if critical:
        lines = [*(f"  {verdict.problem}" for verdict in critical), f"  everything is in {_keep(synthesis, scratch)}"]
        raise CheckFailed("\n".join([f"{recipe.feature}: the synthetic data fails its checks", *lines]))


def _keep(output: Path, scratch: Path) -> Path:
    """A copy of an output that failed, for people to read: the store keeps none."""
    failed = scratch / "failed"
    shutil.rmtree(failed, ignore_errors=True)
    shutil.copytree(output, failed)
    return failed


def _precedence(record: Record, held_out_share: float) -> tuple[bool, bool]:
    """Which of two records with the same id or input stays: the lower; the held-out one never pushes another out."""
    return is_held_out(record, held_out_share), record.target is None


def _sorted_out(
    records: Sequence[Record], validation: Validation
) -> tuple[list[Record], list[tuple[Record, list[Failure]]], list[tuple[Record, Failure]]]:
    """The records that pass; those that are refused, with why; and those that repeat another one, of which the first
    sound one stays.
    """
    refusals: dict[int, list[Failure]] = {}
    for failure in validation.failures:
        refusals.setdefault(failure.position, []).append(failure)
    repeats: dict[int, Failure] = {}
    first: dict[tuple[str, str], int] = {}
    for failure in sorted(validation.repeated, key=lambda failure: failure.position):
        if failure.position in refusals:
            continue
        stays = first.setdefault((failure.what, failure.found), failure.position)
        if stays != failure.position:
            found = f"record {records[stays].id!r}"
            repeats[failure.position] = Failure(failure.position, failure.what, failure.expected, found)
    kept = [record for position, record in enumerate(records) if position not in refusals | repeats]
    refused = [(records[position], refusals[position]) for position in sorted(refusals)]
    return kept, refused, [(records[position], repeats[position]) for position in sorted(repeats)]


def _remove_repeats(cleaned: Cleaned, repeats: Sequence[tuple[Record, Failure]]) -> None:
    """Count records that repeat another one's input as removed: they are no worse than near duplicates."""
    step = cleaned.steps["exact_duplicates"] = Step(seen=len(cleaned.records))
    for record, failure in repeats:
        reason = f"has the input of {failure.found}"
        step.removes(record, reason)
        cleaned.removed.append(Removed("exact_duplicates", reason, record))


def _sides(records: Sequence[Record], held_out: set[str]) -> dict[str, list[Record]]:
    training = [record for record in records if record.id not in held_out]
    return {
        "training": [record for record in training if record.target is not None],
        "unlabelled": [record for record in training if record.target is None],
        "held_out": [record for record in records if record.id in held_out and record.target is not None],
    }


def _quarantined(record: Record, failures: Sequence[Failure]) -> Quarantined:
    reasons = (f"{failure.what}: expected {failure.expected}, found {failure.found}" for failure in failures)
    return Quarantined(record.id, "; ".join(reasons), record.model_dump_json())


def _write(
    output: Path, sides: dict[str, list[Record]], quarantine: Sequence[Quarantined], removed: Sequence[Removed]
) -> None:
    for side, members in sides.items():
        write_records(output / f"{side}.jsonl", members)
    rows = [asdict(row) for row in quarantine]
    (output / "quarantine.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
    rows = [{"step": one.step, "reason": one.reason, "record": one.record.model_dump()} for one in removed]
    (output / "removed.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))


def _steps(report: dict[str, Any], overlap: Overlap) -> dict[str, Any]:
    """What cleaning and the search for overlap did, as one report."""
    more = overlap.report()
    return {name: report.get(name, {}) | more.get(name, {}) for name in report | more}


def _problems(recipe: Recipe, sides: dict[str, list[Record]], quarantined: int, rows: int) -> list[str]:
    """What stops the feature beside critical expectations, in words; nothing if all is well."""
    section = recipe.data
    problems = []
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
