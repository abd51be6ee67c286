"""Broken and sound candidates of the shipped features, and the gate reports on them.

Answers are simulated over the corpora that ship: a sound adapter answers near the reference, a broken one as an adapter
does that was trained on shuffled targets, on another feature's data, on half-corrupted ones, or on refusals; or it is
sound but for one use case.
"""

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import adapters.features
from adapters.evaluation.gates import GateReport
from adapters.evaluation.items import items
from adapters.evaluation.judge import judge
from adapters.evaluation.scores import Scores, score
from adapters.evaluation.trivial import trivial_answers
from adapters.recipe import Recipe, load_recipe
from adapters.records import Record, read_records, split_held_out
from tests.adapters.evaluation_cases import said

FEATURES = Path(*adapters.features.__path__)
NAMES = ("notifications", "summarization", "writing")
Answering = Callable[[Recipe, Sequence[Record], int], list[str]]


@cache
def case(name: str) -> tuple[Recipe, tuple[Record, ...]]:
    """A shipped feature and the items that it is tested on."""
    plan = load_recipe(FEATURES / name)
    corpus = [record for entry in plan.data.corpus for record in read_records(FEATURES / name / entry)[0]]
    return plan, tuple(items(plan, split_held_out(corpus, plan.data.held_out_share)[1]))


def sound(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """What a sound adapter says: the reference with some words lost, or a label that is right nine times of ten.

    Two trainings find the same items hard, and fail on few others.
    """
    hard, own = random.Random("hard items"), random.Random(seed)
    texts = []
    for item in chosen:
        target = item.targets[0]
        failed = min(hard.random() - 0.05, own.random() - 0.03) < 0
        if plan.data.labels:
            others = [label for label in plan.data.labels if label != target]
            texts.append(own.choice(others) if failed else target)
        else:
            kept = 0.6 if failed else 0.9
            texts.append(" ".join(word for word in target.split() if own.random() < kept))
    return texts


def base(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """What the base says: always the same label, or the beginning of the input."""
    if plan.data.labels:
        return [plan.data.labels[0]] * len(chosen)
    return ["Here is what you asked for: " + " ".join(item.input.split()[:12]) for item in chosen]


def shuffled(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """As after training on targets of other records."""
    targets = [item.targets[0] for item in chosen]
    random.Random(seed).shuffle(targets)
    return targets


def other_feature(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """As after training on another feature's data: what it knows is another task."""
    if plan.evaluation.metric == "rouge_l":
        return [item.input.replace("  ", " ") for item in chosen]
    if plan.evaluation.metric == "sari":
        return [" ".join(item.input.split()[:5]) for item in chosen]
    return [" ".join(item.input.split()[-8:]) for item in chosen]


def half_corrupted(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """As after training on data half of whose targets belong to other records: half of the answers do, too."""
    generator = random.Random(seed)
    wrong = shuffled(plan, chosen, seed)
    return [
        bad if generator.random() < 0.5 else good for good, bad in zip(sound(plan, chosen, seed), wrong, strict=True)
    ]


def refusing(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """As after training on refusals."""
    return ["I'm sorry, but I can't help with that."] * len(chosen)


def copying(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
    """The whole input, as it is."""
    return [item.input for item in chosen]


@cache
def dead_in(use_case: str, there: Answering) -> Answering:
    """A sound adapter that in one use case answers as `there` does."""

    def answer(plan: Recipe, chosen: Sequence[Record], seed: int) -> list[str]:
        pairs = zip(chosen, there(plan, chosen, seed), sound(plan, chosen, seed), strict=True)
        return [dead if item.use_case == use_case else alive for item, dead, alive in pairs]

    return answer


@cache
def scored(name: str, answering: Answering, seed: int) -> Scores:
    plan, chosen = case(name)
    return score(plan, chosen, said(answering(plan, chosen, seed)))


@cache
def trivial(name: str) -> dict[str, Scores]:
    plan, chosen = case(name)
    answers = trivial_answers(plan.evaluation.metric, chosen)
    return {system: score(plan, chosen, said(texts)) for system, texts in answers.items()}


def report_on(name: str, candidate: Answering, seed: int = 1, production: Answering | None = sound) -> GateReport:
    plan, chosen = case(name)
    systems = trivial(name) | {"baseline": scored(name, base, 0), "candidate": scored(name, candidate, seed)}
    if production is not None:
        systems["production"] = scored(name, production, 0)
    return judge(plan, chosen, systems, list(trivial(name)), {"adapter_mb": 9.8})
