"""The synthesis stage: a committee writes answers to each unlabelled record, filters reject, the best one stays.

Output folder: `accepted.jsonl` (records to train on), `stacks.json` (of those that were put together, the ids of their
records) and `report.json` (counts per filter, teacher, phrasing and use case; diversity; what the scorer is worth).
Every candidate with its scores goes to the audit table, which lies elsewhere (audit.py), as do the teachers' drafts
(drafts.py).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from adapters.data.contamination import EvaluationNgrams
from adapters.recipe import CleaningSection, Recipe, SynthesisSection
from adapters.records import Record, read_records, text_digest, write_records
from adapters.synthesis.audit import DRAFTS, write_audit
from adapters.synthesis.committee import Candidate, decide
from adapters.synthesis.damage import damage
from adapters.synthesis.diversity import diversity
from adapters.synthesis.drafts import Drafts, Member
from adapters.synthesis.negatives import Pair
from adapters.synthesis.prompts import teaching_prompt
from adapters.synthesis.rewriting import RULES_OF, target_of
from adapters.synthesis.rules import rejections
from adapters.synthesis.scorer import Scorer, train_scorer
from adapters.synthesis.stacks import stack_members, stack_up
from infra.canonical import canonical_json
from infra.errors import FactoryError

STACKS = "stacks.json"
# The calibration of a scorer needs texts that are written, not chosen: labels have none.
_SCORED = ("summarize", "digest", "rewrite")


class Judged(NamedTuple):
    """A document, its candidates with their verdicts, and why people must decide, if they must."""

    document: Record
    candidates: list[Candidate]
    question: str | None


def synthesize(
    recipe: Recipe,
    data: Path,
    committee: Sequence[Member],
    folder: Path,
    table: Path,
    output: Path,
    evaluation_texts: Sequence[tuple[str, str]] = (),
) -> None:
    """Make targets for records of `data/unlabelled.jsonl`, at most `synthesis.max_documents` of them.

    `data` is what the data stage made; `folder` keeps the teachers' drafts; `table` becomes the audit table;
    `evaluation_texts` are pairs of name and text: what nothing may be trained on.

    Raises:
        FactoryError: the recipe has no synthesis section, or `data` holds rows that are no records.
    """
    section = recipe.synthesis
    if section is None:
        raise FactoryError(f"{recipe.feature}: the recipe has no synthesis section; add one to make targets")
    unlabelled, labelled = (_records(data / name) for name in ("unlabelled.jsonl", "training.jsonl"))
    records, members = _stacked(recipe, unlabelled, section.seed)
    documents = chosen_documents(records, section.max_documents)
    scorer = _scorer(recipe, labelled, unlabelled, section)

    judged = [_damaged(document, section.seed) for document in documents if recipe.task(document.use_case) == "damage"]
    asked = [document for document in documents if recipe.task(document.use_case) != "damage"]
    candidates = _candidates(recipe, section, asked, committee, Drafts(folder / DRAFTS, members), scorer)
    if evaluation_texts:
        _reject_contaminated(candidates, [*labelled, *unlabelled], evaluation_texts, recipe.data.cleaning)
    judged += [
        Judged(document, found, decide(found, section.tie)) for document, found in zip(asked, candidates, strict=True)
    ]
    accepted = [
        one.document.model_copy(update={"target": chosen.target, "source": f"synthetic:{chosen.teacher}"})
        for one in judged
        for chosen in one.candidates
        if chosen.verdict == "chosen"
    ]
    write_records(output / "accepted.jsonl", accepted)
    stacks = {record.id: members[record.id] for record in accepted if record.id in members}
    (output / STACKS).write_bytes(canonical_json(stacks))
    write_audit(table, [_row(one, candidate, members) for one in judged for candidate in one.candidates])
    report = _report(judged) | {"diversity": diversity([str(record.target) for record in accepted])}
    (output / "report.json").write_text(json.dumps(report | {"scorer": scorer.facts}, indent=2) + "\n", "utf-8")


def chosen_documents(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` records, the use cases in turn, in an order that depends on each text alone."""
    by_use_case: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (text_digest(record.input), record.id)):
        by_use_case.setdefault(record.use_case, []).append(record)
    in_turn = chain.from_iterable(zip_longest(*(by_use_case[name] for name in sorted(by_use_case))))
    return [record for record in in_turn if record is not None][:most]


def _records(path: Path) -> list[Record]:
    records, refused = read_records(path)
    if refused:
        raise FactoryError(f"{refused[0].where}: {refused[0].reason}; this file is made by the data stage")
    return records


def _stacked(recipe: Recipe, records: Sequence[Record], seed: int) -> tuple[list[Record], dict[str, list[str]]]:
    """The records, those of a digest's use case put together to stacks where they are single notifications; and the ids
    of the records in each stack.
    """
    digests = {name for name in recipe.data.use_cases if recipe.task(name) == "digest"}
    alone = [record.use_case in digests and "\n" not in record.input for record in records]
    others = [record for record, single in zip(records, alone, strict=True) if not single]
    singles = [record for record, single in zip(records, alone, strict=True) if single]
    stacks = stack_up(singles, seed)
    return others + stacks, stack_members(stacks, singles)


def _scorer(
    recipe: Recipe, labelled: Sequence[Record], unlabelled: Sequence[Record], section: SynthesisSection
) -> Scorer:
    pairs = [
        Pair(record.input, record.targets[0], recipe.task(record.use_case))
        for record in labelled
        if recipe.task(record.use_case) in _SCORED and not record.source.startswith("synthetic:")
    ]
    return train_scorer(pairs, [record.input for record in unlabelled], section)


def _candidates(
    recipe: Recipe,
    section: SynthesisSection,
    documents: Sequence[Record],
    committee: Sequence[Member],
    drafts: Drafts,
    scorer: Scorer,
) -> list[list[Candidate]]:
    """Every answer of every teacher to each document, with what speaks against it."""
    asked = [teaching_prompt(recipe, document) for document in documents]
    prompts = [(document, prompt) for document, (prompt, _) in zip(documents, asked, strict=True)]
    answers = {
        member.name: drafts.candidates(member, prompts, section, f"synthesis: {member.name}") for member in committee
    }
    found = []
    for place, (document, (prompt, phrasing)) in enumerate(zip(documents, asked, strict=True)):
        task = recipe.task(document.use_case)
        known = scorer.known(document.input, prompt.system, recipe.data.labels or ())
        candidates = []
        for member in committee:
            for number, answer in enumerate(answers[member.name][place]):
                target = target_of(task, answer)
                reasons = rejections(answer, known.source, section, RULES_OF[task])
                one = Candidate(member.name, phrasing, number, answer, target, reasons)
                if task in _SCORED:
                    one.reasons = reasons | scorer.doubts(target, known)
                    one.groundedness, one.score = scorer.groundedness(target, known), scorer.score(target, known)
                candidates.append(one)
        found.append(candidates)
    return found


def _reject_contaminated(
    found: Sequence[Sequence[Candidate]],
    records: Sequence[Record],
    evaluation_texts: Sequence[tuple[str, str]],
    section: CleaningSection,
) -> None:
    """Reject candidates that share an n-gram with an evaluation text: teachers may know such texts by heart.

    What is common usage is said by the records, as it was for them: not by a teacher that repeats itself.
    """
    candidates = [candidate for several in found for candidate in several]

    def usage() -> Iterator[tuple[str, str]]:
        return ((record.id, text) for record in records for text in (record.input, *record.targets))

    def targets() -> Iterator[tuple[str, str]]:
        return ((str(place), candidate.target) for place, candidate in enumerate(candidates))

    index = EvaluationNgrams(evaluation_texts, *section.ngrams)
    for place, match in index.matches(targets, section.common_ngrams, usage).by_text.items():
        candidates[int(place)].reasons["evaluation_sets"] = f"shares {match.ngram!r} with {match.evaluation}"


def _damaged(document: Record, seed: int) -> Judged:
    """A good text as the target, the same text with mistakes as its input."""
    spoilt, candidate = damage(document, seed)
    return Judged(spoilt, [candidate], None)


def _row(judged: Judged, candidate: Candidate, members: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "id": judged.document.id,
        "members": members.get(judged.document.id, ()),
        "use_case": judged.document.use_case,
        "teacher": candidate.teacher,
        "phrasing": candidate.phrasing,
        "number": candidate.number,
        "text": candidate.answer.text,
        "target": candidate.target,
        "tokens": candidate.answer.tokens,
        "logprob": candidate.answer.logprob,
        "groundedness": candidate.groundedness,
        "score": candidate.score,
        "agreement": candidate.agreement,
        "rank": candidate.rank,
        "verdict": candidate.verdict,
        "reasons": candidate.reasons,
        "question": judged.question if candidate.verdict == "queued" else None,
    }


def _report(judged: Sequence[Judged]) -> dict[str, Any]:
    """Counts over everything, and by use case, teacher and phrasing. A candidate counts for every filter it fails."""
    return {
        **_counts(judged),
        "use_cases": _by(judged, lambda one, candidate: one.document.use_case),
        "teachers": _by(judged, lambda one, candidate: candidate.teacher),
        "phrasings": _by(judged, lambda one, candidate: f"{one.document.use_case} {candidate.phrasing}"),
    }


def _by(judged: Sequence[Judged], name: Callable[[Judged, Candidate], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        parts: dict[str, list[Candidate]] = {}
        for candidate in one.candidates:
            parts.setdefault(name(one, candidate), []).append(candidate)
        for key, candidates in parts.items():
            groups.setdefault(key, []).append(one._replace(candidates=candidates))
    return {key: _counts(groups[key]) for key in sorted(groups)}


def _counts(judged: Sequence[Judged]) -> dict[str, Any]:
    candidates = [candidate for one in judged for candidate in one.candidates]
    verdicts = Counter(candidate.verdict for candidate in candidates)
    failed = Counter(name for candidate in candidates for name in candidate.reasons)
    return {
        "documents": len(judged),
        "accepted": verdicts["chosen"],
        "acceptance_rate": _rate(verdicts["chosen"], len(judged)),
        "queued": sum(any(candidate.verdict == "queued" for candidate in one.candidates) for one in judged),
        "candidates": len(candidates),
        "candidates_passed": len(candidates) - verdicts["rejected"],
        "tokens": sum(candidate.answer.tokens for candidate in candidates),
        "reasons": dict(failed.most_common()),
    }


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def acceptance_figures(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a report for MLflow: acceptance by use case and teacher, and each filter's share of rejections."""
    figures = {"synthesis.acceptance": report["acceptance_rate"], "synthesis.queued": report["queued"]}
    for kind in ("use_cases", "teachers"):
        figures |= {f"synthesis.acceptance/{name}": counts["acceptance_rate"] for name, counts in report[kind].items()}
    candidates = max(report["candidates"], 1)
    figures |= {f"synthesis.rejected/{name}": count / candidates for name, count in report["reasons"].items()}
    figures |= {f"synthesis.{name}": value for name, value in report["diversity"].items()}
    figures["synthesis.scorer_auc"] = report["scorer"]["auc"]
    return {name: float(value) for name, value in figures.items() if value is not None}
