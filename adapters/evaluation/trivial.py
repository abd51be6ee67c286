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
# Without one of these a block of `name: text` is a chat's turns.
_MAIL = {"from", "to", "cc", "subject", "date", "sent"}
_SENTENCE = re.compile(r".+?(?:[.!?](?=\s|$)|$)", re.DOTALL)
_GREETING_WORDS = 4
_LEAD_WORDS = 60

Trivial = Callable[[Sequence[Record]], list[str]]


def first_two_lines(text: str) -> str:
    """The first two lines that say something: of a chat its first two turns, of mail none of its headers."""
    return "\n".join(_read(text)[1][:2])


def first_60_words(text: str) -> str:
    """The first 60 words after the headers, at most half of all: the whole text would be no summary."""
    words = " ".join(_read(text)[1]).split()
    return " ".join(words[: min(_LEAD_WORDS, len(words) // 2)])


def subject_and_first_sentence(text: str) -> str:
    """An email's subject and its first sentence after a greeting; of a text without headers the first sentence."""
    subject, body = _read(text)
    if len(body) > 1 and body[0].endswith(",") and len(body[0].split()) <= _GREETING_WORDS:
        body = body[1:]
    found = _SENTENCE.match(" ".join(body))
    sentence = found[0].strip() if found else ""
    return f"{subject}. {sentence}" if subject else sentence


def _read(text: str) -> tuple[str, list[str]]:
    """The first subject ("" if there is none), and the lines that say something, without the headers of all mails."""
    subject, body = "", []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        matches = [_HEADER.match(line) for line in lines]
        headers = {match[1].casefold(): match[2].strip() for match in matches if match}
        if all(matches) and not _MAIL.isdisjoint(headers):
            subject = subject or headers.get("subject", "")
        else:
            body += lines
    return subject, body


def most_frequent(items: Sequence[Record]) -> list[str]:
    """The label that most items have, for every item. It is taken from the test itself: no constant does better."""
    counts = Counter(item.targets[0] for item in items)
    return [min(counts, key=lambda label: (-counts[label], label))] * len(items)


def _each(answer: Callable[[str], str]) -> Trivial:
    return lambda items: [answer(item.input) for item in items]


SYSTEMS: Mapping[Metric, Mapping[str, Trivial]] = {
    "rouge_l": {
        "first_two_lines": _each(first_two_lines),
        "first_60_words": _each(first_60_words),
        "subject_and_first_sentence": _each(subject_and_first_sentence),
    },
    "sari": {"unchanged": _each(str)},
    "macro_f1": {"most_frequent": most_frequent},
}


def trivial_answers(metric: Metric, items: Sequence[Record]) -> dict[str, list[str]]:
    """What each trivial system for a metric answers, one text per item."""
    return {name: answer(items) for name, answer in SYSTEMS[metric].items()}
