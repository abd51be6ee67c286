"""What rejection and the committee's choice are worth: the chosen candidate against others of the same teacher.

The base answers chats of DialogSum, greedily and several times at random. The chats are cut in five folds; each is
judged by a scorer that people's summaries of the other four taught. Where a candidate is chosen, it is compared with a
random one and with the greedy answer, by ROUGE-L against the human summary and by groundedness. Intervals are of paired
differences, over documents. Answers are kept in the workspace, so that a stopped run goes on.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from adapters.evaluation.metrics_summary import rouge
from adapters.evaluation.statistics import interval, resample, weighted_mean
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Answer
from adapters.recipe import Recipe, SynthesisSection
from adapters.records import Record
from adapters.synthesis.committee import Candidate, decide
from adapters.synthesis.drafts import Drafts, Member
from adapters.synthesis.negatives import Pair
from adapters.synthesis.prompts import teaching_prompt
from adapters.synthesis.rules import rejections
from adapters.synthesis.scorer import Scorer, train_scorer
from infra.canonical import digest_folder
from infra.compute import Compute
from infra.settings import load_settings
from infra.workspace import Workspace
from tests.benchmarks.common import Figure, base_folder
from tests.benchmarks.texts import rows

_SECTION = SynthesisSection(candidates=13, words=(5, 40), max_new_tokens=50)
_FOLDS = 5
Scores = dict[str, list[list[float]]]


def run() -> list[Figure]:
    """The share of documents with a chosen candidate, and how much better that one is."""
    every = [
        (Record(id=row["id"], use_case="messages", input=row["dialogue"], source="s", license="l"), row["summary"])
        for row in rows("summarization/messages.train.jsonl")
    ]
    drafted = _candidates([record for record, _ in every])
    scores: Scores = {"chosen": [], "random": [], "greedy": []}
    for fold in range(_FOLDS):
        others = [pair for number, pair in enumerate(every) if number % _FOLDS != fold]
        asked = every[fold::_FOLDS]
        scorer = train_scorer(
            [Pair(record.input, summary) for record, summary in others],
            [record.input for record, _ in asked],
            _SECTION,
        )
        for (record, summary), answers in zip(asked, drafted[fold::_FOLDS], strict=True):
            _compare(scorer, record, summary, answers, scores)
    found = [Figure("documents_with_a_candidate", "share", len(scores["chosen"]) / len(every))]
    for place, metric in enumerate(("rouge_l", "groundedness")):
        ours = [one[place] for one in scores["chosen"]]
        for rival in ("random", "greedy"):
            found += paired(f"{metric}_vs_{rival}", ours, [one[place] for one in scores[rival]])
    return found


def _compare(scorer: Scorer, record: Record, summary: str, answers: Sequence[Answer], scores: Scores) -> None:
    """Choose, and add ROUGE-L and groundedness of the chosen candidate and of its rivals; none chosen: nothing."""
    known = scorer.known(record.input, teaching_prompt(_recipe(), record)[0].system)
    candidates = []
    for number, answer in enumerate(answers):
        reasons = rejections(answer, known.source, _SECTION) | scorer.doubts(answer.text, known)
        one = Candidate("base", 0, number, answer, answer.text, reasons)
        one.score, one.groundedness = scorer.score(answer.text, known), scorer.groundedness(answer.text, known)
        candidates.append(one)
    decide(candidates, _SECTION.tie)
    chosen = [one.answer for one in candidates if one.verdict == "chosen"]
    chance = random.Random(record.id)
    for answer in chosen:
        told = {"chosen": answer, "random": chance.choice(answers[1:]), "greedy": answers[0]}
        for name, one_told in told.items():
            text = one_told.text
            scores[name].append([rouge(text, [summary])["rouge_l"], scorer.groundedness(text, known)])


def paired(name: str, ours: Sequence[float], peer: Sequence[float]) -> list[Figure]:
    """Both means, and the bounds of the interval of their difference over the same items (95%)."""
    differences = [one - other for one, other in zip(ours, peer, strict=True)]
    places = [str(place) for place in range(len(differences))]
    weights = resample(["all"] * len(places), places, seed=0)
    found = interval(sum(differences) / len(differences), weighted_mean(weights, differences))
    mine, theirs = sum(ours) / len(ours), sum(peer) / len(peer)
    return [
        Figure(name, "mean", mine, theirs, mine / theirs if theirs else None),
        Figure(f"{name}_low", "difference", found.low),
        Figure(f"{name}_high", "difference", found.high),
    ]


def _recipe() -> Recipe:
    data = {"corpus": [], "system": "", "use_cases": {"messages": {"prompt": "{input}", "max_new_tokens": 50}}}
    content = {"feature": "chats", "description": "", "data": data, "evaluation": {"metric": "rouge_l"}}
    return Recipe.model_validate(content | {"synthesis": _SECTION.model_dump()})


def _candidates(records: Sequence[Record]) -> list[list[Answer]]:
    """The base's answers to each record, the greedy one first."""
    folder = base_folder()
    home: Path = load_settings().home.expanduser().resolve()
    opened: list[LocalGenerator] = []

    def open_generator() -> LocalGenerator:
        if not opened:
            opened.append(LocalGenerator(load_model(folder, Compute().dtype), load_tokenizer(folder)))
        return opened[0]

    member = Member("base", digest_folder(folder), open_generator)
    prompts = [(record, teaching_prompt(_recipe(), record)[0]) for record in records]
    return Drafts(Workspace(home).synthesis / "bench").candidates(member, prompts, _SECTION, "best of k")
