"""The synthesis stage: a teacher writes several summaries of each unlabelled record, rules reject, the best one stays.

Output folder: `accepted.jsonl` (records to train on), `candidates.jsonl` (every candidate with its verdict) and
`report.json` (counts per rule and use case). Best is the survivor that agrees most with the others (minimum Bayes risk
with the overlap of words as the gain: Kumar and Byrne 2004), then the likeliest.

Answers are appended to `scratch/answers.jsonl` as they come, so that a killed run generates nothing twice.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TextIO

from adapters.inference.types import Answer, Prompt, Sampling, TextGenerator
from adapters.recipe import Recipe, SynthesisSection
from adapters.records import Record, read_records, text_digest, write_records
from adapters.synthesis.facts import words
from adapters.synthesis.rules import Source, common_words, rejections
from infra.canonical import canonical_json
from infra.errors import FactoryError
from infra.progress import track

# What the teacher is told instead of the recipe's prompts, which are for the adapter; the document alone follows. These
# are words that SmolLM2 was tuned with (the smol-summarize part of SmolTalk) and that any larger model understands. In
# a small trial (12 documents, 4 candidates, temperature 0.7, one seed) 6 documents had a survivor, against 1 with the
# recipe's prompts and rules about length, and 2 with such rules added to these words.
INSTRUCTION = (
    "Extract and present the main key point of the input text in one very short sentence, including essential details "
    "like dates or locations if necessary."
)


@dataclass(frozen=True)
class Candidate:
    """One answer of the teacher to one document, the rules that reject it, and whether it was chosen."""

    answer: Answer
    rejected: dict[str, str]
    agreement: float = 0.0
    chosen: bool = False


def synthesize(recipe: Recipe, unlabelled: Path, teacher: TextGenerator, output: Path, scratch: Path) -> None:
    """Make targets for the records of the file `unlabelled`, at most `synthesis.max_documents` of them.

    Raises:
        FactoryError: the recipe has no synthesis section, or `unlabelled` holds rows that are no records.
    """
    section = recipe.synthesis
    if section is None:
        raise FactoryError(f"{recipe.feature}: the recipe has no synthesis section; add one to make targets")
    records, refused = read_records(unlabelled)
    if refused:
        raise FactoryError(f"{refused[0].where}: {refused[0].reason}; this file is made by the data stage")
    documents = chosen_documents(records, section.max_documents)
    answers = _answers(section, documents, teacher, scratch / "answers.jsonl")

    common = common_words(record.input for record in records)
    judged = [_judge(section, document, answers[document.id], common) for document in documents]
    source = f"synthetic:{section.teacher_model or section.teacher}"
    accepted = [
        document.model_copy(update={"target": candidate.answer.text.strip(), "source": source})
        for document, candidates in zip(documents, judged, strict=True)
        for candidate in candidates
        if candidate.chosen
    ]
    write_records(output / "accepted.jsonl", accepted)
    with (output / "candidates.jsonl").open("wb") as file:
        for document, candidates in zip(documents, judged, strict=True):
            file.writelines(canonical_json(_row(document, candidate)) + b"\n" for candidate in candidates)
    report = _report(documents, judged)
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def chosen_documents(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` records, the use cases in turn, in an order that depends on each text alone."""
    by_use_case: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (text_digest(record.input), record.id)):
        by_use_case.setdefault(record.use_case, []).append(record)
    in_turn = chain.from_iterable(zip_longest(*(by_use_case[name] for name in sorted(by_use_case))))
    return [record for record in in_turn if record is not None][:most]


def _answers(
    section: SynthesisSection, documents: Sequence[Record], teacher: TextGenerator, state: Path
) -> dict[str, list[Answer]]:
    """The teacher's answers by document, those in the file `state` and the new ones, which are appended to it."""
    answers = _read_state(state)
    waiting = [document for document in documents if document.id not in answers]
    prompts = [Prompt(INSTRUCTION, document.input) for document in waiting]
    sampling = Sampling(
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
        candidates=section.candidates,
        seed=section.seed,
    )
    tokens = 0
    with state.open("a", encoding="utf-8") as file, track("synthesis: documents", len(documents)) as step:
        step.advance(len(documents) - len(waiting))

        def keep(index: int, made: list[Answer]) -> None:
            nonlocal tokens
            answers[waiting[index].id] = made
            _append_state(file, waiting[index].id, made)
            tokens += sum(answer.tokens for answer in made)
            step.advance(note=f"{tokens} tokens")

        if waiting:
            teacher.generate(prompts, sampling, keep)
    return answers


def _read_state(state: Path) -> dict[str, list[Answer]]:
    """Answers that an earlier run of the same stage left; a last line that a kill cut off is dropped from the file."""
    if not state.is_file():
        return {}
    content = state.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        state.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["id"]: [Answer(**answer) for answer in row["answers"]] for row in rows}


def _append_state(file: TextIO, document: str, answers: Sequence[Answer]) -> None:
    row = {"id": document, "answers": [asdict(answer) for answer in answers]}
    file.write(json.dumps(row) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _judge(
    section: SynthesisSection, document: Record, answers: Sequence[Answer], common: frozenset[str]
) -> list[Candidate]:
    """Every answer with its verdict; at most one is chosen."""
    source = Source.of(document.input, INSTRUCTION, common)
    rejected = [rejections(answer, source, section) for answer in answers]
    survivors = [number for number, reasons in enumerate(rejected) if not reasons]
    agreement = {
        number: _agreement(answers[number].text, [answers[other].text for other in survivors if other != number])
        for number in survivors
    }
    best = max(survivors, key=lambda number: (agreement[number], answers[number].logprob), default=None)
    return [
        Candidate(answer, rejected[number], agreement.get(number, 0.0), chosen=number == best)
        for number, answer in enumerate(answers)
    ]


def _agreement(text: str, others: Sequence[str]) -> float:
    """Mean F1 of a text's words with those of each other text; 0 without others."""
    own = Counter(words(text))
    scores = []
    for other in others:
        counts = Counter(words(other))
        scores.append(2 * (own & counts).total() / max(own.total() + counts.total(), 1))
    return sum(scores) / len(scores) if scores else 0.0


def _row(document: Record, candidate: Candidate) -> dict[str, Any]:
    verdict = "rejected" if candidate.rejected else "chosen" if candidate.chosen else "outvoted"
    return {
        "id": document.id,
        "use_case": document.use_case,
        "text": candidate.answer.text,
        "verdict": verdict,
        "reasons": candidate.rejected,
        "logprob": round(candidate.answer.logprob, 6),
        "agreement": round(candidate.agreement, 6),
    }


def _report(documents: Sequence[Record], judged: Sequence[Sequence[Candidate]]) -> dict[str, Any]:
    """Counts over everything and per use case. A candidate counts for every rule that rejects it."""
    groups: dict[str, list[Sequence[Candidate]]] = {}
    for document, candidates in zip(documents, judged, strict=True):
        groups.setdefault(document.use_case, []).append(candidates)
    return _counts(judged) | {"use_cases": {name: _counts(group) for name, group in sorted(groups.items())}}


def _counts(judged: Sequence[Sequence[Candidate]]) -> dict[str, Any]:
    candidates = list(chain.from_iterable(judged))
    sound = sum(not candidate.rejected for candidate in candidates)
    accepted = sum(candidate.chosen for candidate in candidates)
    return {
        "documents": len(judged),
        "accepted": accepted,
        "acceptance_rate": round(accepted / len(judged), 4) if judged else None,
        "candidates": len(candidates),
        "candidates_passed": sound,
        "tokens": sum(candidate.answer.tokens for candidate in candidates),
        "reasons": dict(Counter(name for candidate in candidates for name in candidate.rejected).most_common()),
    }
