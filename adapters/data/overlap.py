"""Records that other records repeat: near duplicates, and evaluation texts that could have been trained on.

Works on records in their order of precedence, the training side first: what is decided about that side depends on
no held-out record. A near duplicate goes if a record before it is nearly the same, in the same use case, or in any if
it is held out. A held-out record goes if it shares an n-gram with the training side; a record of that side goes if it
shares one with an evaluation set that the recipe names.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from adapters.data.cleaning import Removed, Step
from adapters.data.contamination import EvaluationNgrams, Match
from adapters.data.duplicates import NearDuplicates
from adapters.recipe import CleaningSection
from adapters.records import Record

_PROOFS = 50


@dataclass(frozen=True)
class Overlap:
    """What is left, what was removed, what each step did, and which sources repeat which."""

    records: list[Record]
    removed: list[Removed]
    steps: dict[str, Step]
    between: Counter[str]
    proofs: list[Match]

    def report(self) -> dict[str, Any]:
        """Counts and examples by step, repeats by pair of sources, and the first n-grams that prove contamination."""
        return {
            "cleaning": {
                name: {"seen": step.seen, "changed": step.changed, "removed": step.removed}
                for name, step in self.steps.items()
            },
            "examples": {
                name: [asdict(one) for one in step.examples] for name, step in self.steps.items() if step.examples
            },
            "repeats_between_sources": dict(self.between),
            "contamination": {"proofs": [asdict(match) for match in self.proofs[:_PROOFS]]},
        }


def remove_overlap(
    records: Sequence[Record],
    held_out: Collection[str],
    section: CleaningSection,
    evaluation_texts: Sequence[tuple[str, str]],
) -> Overlap:
    """Take out what repeats. `held_out` are ids, and `records` have them last; `evaluation_texts` are pairs of name and
    text.
    """
    overlap = Overlap(list(records), [], {}, Counter(), [])
    if section.near_duplicates is not None:
        _near_duplicates(overlap, held_out, section.near_duplicates)
    if evaluation_texts:
        index = EvaluationNgrams(evaluation_texts, *section.ngrams)
        training = [record for record in overlap.records if record.id not in held_out]
        matches = index.matches(partial(_texts, training), section.common_ngrams)
        _contaminated(overlap, "evaluation_sets", matches.by_text)
    index = EvaluationNgrams(_texts([one for one in overlap.records if one.id in held_out]), *section.ngrams)
    training = [record for record in overlap.records if record.id not in held_out]
    matches = index.matches(partial(_texts, training), section.common_ngrams)
    _contaminated(overlap, "held_out", matches.by_evaluation)
    return overlap


def _near_duplicates(overlap: Overlap, held_out: Collection[str], threshold: float) -> None:
    step = overlap.steps["near_duplicates"] = Step()
    index = NearDuplicates(threshold)
    kept: list[Record] = []
    for record in overlap.records:
        step.seen += 1

        def counts(position: int, record: Record = record) -> bool:
            other = kept[position]
            return other.use_case == record.use_case or (record.id in held_out and other.id not in held_out)

        found = index.add(record.input, counts)
        if found is None:
            kept.append(record)
            continue
        other = kept[found.position]
        reason = f"{found.similarity:.2f} alike to record {other.id!r} of {other.source}"
        step.removes(record, reason)
        overlap.removed.append(Removed("near_duplicates", reason, record))
        overlap.between[" and ".join(sorted((record.source, other.source)))] += 1
    overlap.records[:] = kept


def _contaminated(overlap: Overlap, name: str, matches: dict[str, Match]) -> None:
    """Remove the records that `matches` names by id."""
    step = overlap.steps[name] = Step(seen=len(overlap.records))
    overlap.proofs.extend(matches.values())
    kept = []
    for record in overlap.records:
        match = matches.get(record.id)
        if match is None:
            kept.append(record)
            continue
        other = match.evaluation if record.id == match.text else match.text
        reason = f"shares {match.ngram!r} with {other}"
        step.removes(record, reason)
        overlap.removed.append(Removed(name, reason, record))
    overlap.records[:] = kept


def _texts(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    return ((record.id, text) for record in records for text in (record.input, *record.targets))
