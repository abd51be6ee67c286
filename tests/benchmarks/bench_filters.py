"""What the filters of synthesis make of human summaries, and of the same ones corrupted on purpose.

Chats of DialogSum and mail threads of ConvoSumm, each set in halves: what is learnt from one (thresholds, scorer)
judges the other. The recipe's rules about length and copying are set aside, since they are about a product's taste. A
quarter of ConvoSumm's threads are paired with another thread's summary; what fits another thread better is left out.

Figures: the share of human summaries that pass, of corrupted ones that are rejected, and, by kind of corruption, the
AUC of the scorer's probability (human against corrupted).
"""

import random
from collections.abc import Sequence

from adapters.inference.types import Answer
from adapters.recipe import SynthesisSection
from adapters.synthesis.negatives import Pair
from adapters.synthesis.rules import rejections
from adapters.synthesis.scorer import Scorer, train_scorer
from tests.benchmarks.common import Figure
from tests.benchmarks.corruptions import CORRUPTIONS, Summary
from tests.benchmarks.texts import rows

_SECTION = SynthesisSection(words=(4, 130), max_copied_share=0.9)


def run() -> list[Figure]:
    """Figures for chats, then for mail."""
    return [figure for name, summaries in human_summaries().items() for figure in _figures(name, summaries)]


def human_summaries() -> dict[str, list[Summary]]:
    """Documents with the summaries that people wrote, by kind."""
    chat = [Summary(row["dialogue"], row["summary"]) for row in rows("summarization/messages.train.jsonl")]
    threads = [row for part in ("train", "val") for row in rows(f"summarization/email_threads.{part}.jsonl")]
    mail = [
        Summary(
            "\n\n".join(f"From: {one['from']}\nSubject: {one['subject']}\n\n{one['text']}" for one in row["messages"]),
            row["summary"],
        )
        for row in threads
    ]
    return {"chat": chat, "mail": _matched(mail)}


def _matched(summaries: Sequence[Summary]) -> list[Summary]:
    """Those whose summary is nearest, by TF-IDF, to their own document."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    documents = vectorizer.fit_transform([one.document for one in summaries])
    nearest = (vectorizer.transform([one.text for one in summaries]) @ documents.T).toarray().argmax(1)
    return [one for place, one in enumerate(summaries) if nearest[place] == place]


def _figures(name: str, summaries: Sequence[Summary]) -> list[Figure]:
    from sklearn.metrics import roc_auc_score

    chance = random.Random(1)
    verdicts: dict[str, list[bool]] = {kind: [] for kind in ("human", *CORRUPTIONS)}
    scores: dict[str, list[float]] = {kind: [] for kind in verdicts}
    for learnt, judged in (summaries[0::2], summaries[1::2]), (summaries[1::2], summaries[0::2]):
        scorer = train_scorer(
            [Pair(one.document, one.text) for one in learnt],
            [one.document for one in judged],
            _SECTION,
        )
        for one in judged:
            made = {kind: corrupt(one, summaries, chance) for kind, corrupt in CORRUPTIONS.items()}
            for kind, text in (("human", one), *made.items()):
                if text is not None:
                    passed, score = judge(text, scorer)
                    verdicts[kind].append(passed)
                    scores[kind].append(score)
    passing = verdicts.pop("human")
    human = scores.pop("human")
    figures = [Figure(f"human_pass_{name}", "share", sum(passing) / len(passing))]
    for kind, found in verdicts.items():
        figures.append(Figure(f"rejected_{name}_{kind}", "share", found.count(False) / len(found)))
        auc = roc_auc_score([1] * len(human) + [0] * len(scores[kind]), human + scores[kind])
        figures.append(Figure(f"auc_{name}_{kind}", "AUC", float(auc)))
    return figures


def judge(summary: Summary, scorer: Scorer) -> tuple[bool, float]:
    """Whether a summary passes every filter, and the scorer's probability."""
    known = scorer.known(summary.document, "")
    answer = Answer(summary.text, len(summary.text.split()), 0.0, True)
    doubted = rejections(answer, known.source, _SECTION) or scorer.doubts(summary.text, known)
    return not doubted, scorer.score(summary.text, known)
