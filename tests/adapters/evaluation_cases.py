"""Made-up features, records and answers that the tests of evaluation share."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.evaluation.answers import ANSWERS, write_table
from adapters.evaluation.gates import GateReport
from adapters.evaluation.judge import judge
from adapters.evaluation.scores import score
from adapters.evaluation.trivial import trivial_answers
from adapters.inference.types import Answer
from adapters.recipe import Recipe
from adapters.records import Record

PEOPLE = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lou")
THINGS = ("the red bicycle", "a box of plums", "two tickets", "the spare key", "an old radio")
PLACES = ("at the north gate", "behind the bakery", "in the school hall", "by the river", "on platform nine")


def recipe(
    metric: str, cases: Sequence[str] = ("one", "two"), per_case: int = 100, gates: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe whose use cases allow 7, 8, … tokens; `gates` changes the standard ones."""
    use_case = {"max_new_tokens": 7, "prompt": "Do it.\n\n{input}"}
    return Recipe.model_validate(
        {
            "feature": "trial",
            "description": "made for a test",
            "data": {
                "corpus": [],
                "system": "You help.",
                "use_cases": {name: use_case | {"max_new_tokens": 7 + place} for place, name in enumerate(cases)},
                "labels": ["1", "2", "3"] if metric == "macro_f1" else None,
            },
            "evaluation": {"metric": metric, "items_per_use_case": per_case, "gates": gates or {}},
        }
    )


def records(metric: str, count: int = 40) -> list[Record]:
    """Short messages of two use cases, in turns, with a summary, an edited text or a label as target."""
    generator = random.Random(0)
    made = []
    for number in range(count):
        person, other = generator.sample(PEOPLE, 2)
        thing, place = generator.choice(THINGS), generator.choice(PLACES)
        text = (
            f"{person}: hi {other}, so I thought about it and {thing} is what I will leave {place} for you ({number})"
        )
        target = str(number % 3 + 1) if metric == "macro_f1" else f"{person} leaves {thing} {place} for {other}."
        made.append(record(f"r{number}", ("one", "two")[number % 2], text, target))
    return made


def record(key: str, use_case: str, text: str, target: str, source: str = "test") -> Record:
    """A record with defaults for what tests do not care about."""
    return Record(id=key, use_case=use_case, input=text, target=target, source=source, license="Apache-2.0")


def sound(chosen: Sequence[Record], seed: int, share: float) -> list[str]:
    """Answers that keep about `share` of each reference's words, or are right in that share of labels."""
    generator = random.Random(seed)
    texts = []
    for item in chosen:
        target = item.targets[0]
        if len(target) == 1:
            texts.append(target if generator.random() < share else generator.choice("123"))
        else:
            texts.append(" ".join(word for word in target.split() if generator.random() < share))
    return texts


def said(texts: Sequence[str]) -> list[Answer]:
    """Texts as answers of an engine that tells no probabilities."""
    return [Answer(text, len(text.split()), 0.0, True) for text in texts]


def judged(plan: Recipe, chosen: Sequence[Record], systems: Mapping[str, Sequence[str]], mb: float = 9.8) -> GateReport:
    """The gate report on systems' answers, the trivial ones added."""
    trivial = trivial_answers(plan.evaluation.metric, chosen)
    scores_of = {name: score(plan, chosen, said(texts)) for name, texts in {**trivial, **systems}.items()}
    return judge(plan, chosen, scores_of, list(trivial), {"adapter_mb": mb})


def write_texts(folder: Path, chosen: Sequence[Record], texts: Sequence[str]) -> Path:
    """Answers as a system's folder holds them."""
    folder.mkdir()
    rows = [
        {"id": item.id, "use_case": item.use_case, "text": text, "tokens": 3, "logprob": -0.1, "finished": True}
        for item, text in zip(chosen, texts, strict=True)
    ]
    write_table(folder / ANSWERS, rows)
    return folder
