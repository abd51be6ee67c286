"""Answers that cost nothing: an adapter that does not beat the best of them is no product.

For news "the first sentences" are hard to beat (See et al., 2017), for chats the first turns (Gliwa et al., 2019,
"SAMSum Corpus"), and an edit score can be beaten by leaving texts as they are.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from adapters.recipe import Metric
from adapters.records import Record

_HEADER = re.compile(r"^(\w[\w-]*): ?(.*)$")
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_GREETING_WORDS = 4

Trivial = Callable[[Sequence[Record]], list[str]]


def first_two_lines(text: str) -> str:
    """The first two lines that say something: of a chat its first two turns."""
    return "\n".join([line.strip() for line in text.splitlines() if line.strip()][:2])


def subject_and_first_sentence(text: str) -> str:
    """An email's subject and its first sentence after a greeting; of a text without headers the first sentence."""
    lines = text.strip().splitlines()
    headers: dict[str, str] = {}
    if "" in lines:
        head = [_HEADER.match(line) for line in lines[: lines.index("")]]
        if all(head):
            headers = {match[1].casefold(): match[2].strip() for match in head if match}
            lines = lines[lines.index("") + 1 :]
    body = [line.strip() for line in lines if line.strip()]
    if len(body) > 1 and body[0].endswith(",") and len(body[0].split()) <= _GREETING_WORDS:
        body = body[1:]
    found = _SENTENCE.match(" ".join(body))
    sentence = found[0].strip() if found else ""
    subject = headers.get("subject", "")
    return f"{subject}. {sentence}" if subject else sentence


def most_frequent(items: Sequence[Record]) -> list[str]:
    """The label that most items have, for every item. It is taken from the test itself: no constant does better."""
    counts = Counter(item.targets[0] for item in items)
    return [min(counts, key=lambda label: (-counts[label], label))] * len(items)


def _each(answer: Callable[[str], str]) -> Trivial:
    return lambda items: [answer(item.input) for item in items]


SYSTEMS: Mapping[Metric, Mapping[str, Trivial]] = {
    "rouge_l": {
        "first_two_lines": _each(first_two_lines),
        "subject_and_first_sentence": _each(subject_and_first_sentence),
    },
    "sari": {"unchanged": _each(str)},
    "macro_f1": {"most_frequent": most_frequent},
}


def trivial_answers(metric: Metric, items: Sequence[Record]) -> dict[str, list[str]]:
    """What each trivial system for a metric answers, one text per item."""
    return {name: answer(items) for name, answer in SYSTEMS[metric].items()}
