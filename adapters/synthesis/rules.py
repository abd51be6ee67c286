"""The rules that reject a synthetic summary: pure functions, each with a name and a reason that a person can read.

A rule gets the candidate and what is known about its source, and says why the candidate is not fit to train on, or
None. False rejections are cheap (there are several candidates for each document), false acceptances are trained on, so
the rules lean to rejecting.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from adapters.inference.types import Answer
from adapters.recipe import SynthesisSection
from adapters.synthesis.facts import (
    Number,
    counted,
    handles,
    is_handle,
    is_misspelt,
    is_named,
    name_spellings,
    names,
    numbers,
    runs,
    supported_numbers,
    vocabulary,
    words,
)
from adapters.synthesis.orders import without_orders

_COPIED_RUN = 4
_ECHOED_RUN = 5
_REPEATED_RUN = 3
_REPEATED_TIMES = 3
_WORDS_PER_REPETITION = 12
# A floor for any kind of text; how grounded people are in theirs is learnt from their targets (scorer.py).
_MIN_GROUNDED = 0.4
_STEM = 5
_SHOWN = 3

_REFUSAL = re.compile(
    r"^(?:i['’]?m |i am )?(?:sorry|afraid|unable)\b|^i (?:can(?:no|['’])t|cannot|won['’]t|don['’]t)\b"
    r"|\bas an? (?:ai|assistant|language model)\b|\blanguage model\b",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"^(?:sure|certainly|of course|absolutely|okay|ok)\b[,!.:]|^here(?:['’]s| is| are)\b"
    r"|^(?:summary|tl;?dr|answer|note)\s*:"
    r"|<\|.*?\|>|^(?:system|user|assistant)\s*:"
    r"|\bthis (?:text|passage)\b|\bthe (?:provided|given|input) (?:text|passage)\b|\blet me know\b|\bhope this helps\b",
    re.IGNORECASE | re.MULTILINE,
)
_SUMMARIZING = re.compile(r"\bsummar(?:y|ize[sd]?|ise[sd]?|izing|ising)\b", re.IGNORECASE)
_ABOUT_ITSELF = re.compile(
    r"\b(?:this|the) (?:e-?mail|chat|message|conversation|thread|notification)s? "
    r"(?:is|are|was|were|has|contains?|covers?|provides?|includes?|highlights?)\b",
    re.IGNORECASE,
)
_BREAKS_OFF = re.compile(r"(?:[,:;(–—-]|\b(?:a|an|and|but|of|or|the))$", re.IGNORECASE)
_FIRST_PERSON = re.compile(r"\b(?:I|[Mm]e|[Mm]y|[Mm]ine|[Ww]e|us|[Oo]urs?)\b(?!\.)")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<!\w)['‘][^'’]*['’](?!\w)")
# "Anna: ", "Line two: ", and the "App - Title: " of a notification.
_SPEAKER = re.compile(r"(?:[\w'’.-]+ )?[\w'’.-]+: |[^.:]{1,60} [-–] [^.:]{1,60}: ")
_MARKUP = re.compile(r"^(?:[-*•>]|#+\s|\d+[.)]\s)|\*\*|```|https?://")
# Longer words that carry no meaning of their own (shorter ones do not count anyway).
_FUNCTION_WORDS = """
    about after again also because been before being both could does doing each from further have having here herself
    himself into just more most once only other over should since some such than that their them themselves then there
    these they this those under until very were what when where which while whom whose will with would your
"""
# Words that open a sentence in any summary, so that a small corpus does not make names of them.
_OPENERS = """
    a additionally after all also although an and as at because before both but by due during each every everyone for
    from furthermore he her here his however how if in instead it its many meanwhile most no nobody none on one or our
    please she several since so some someone that the their then there these they this those though three to two we what
    when where which while who why with without you your
"""
_MEANINGLESS = frozenset(_FUNCTION_WORDS.split())
_NEVER_NAMES = frozenset(_OPENERS.split())


@dataclass(frozen=True)
class Source:
    """What is known about a document that its summary is checked against; `text` is without orders to a model."""

    text: str
    vocabulary: frozenset[str]
    stems: frozenset[str]
    numbers: frozenset[str]
    counted: dict[str, frozenset[str]]
    runs: frozenset[tuple[str, ...]]
    instruction_runs: frozenset[tuple[str, ...]]
    common: frozenset[str]
    spellings: frozenset[str]
    handles: frozenset[str]
    gives_orders: bool
    labels: frozenset[str] = frozenset()

    @staticmethod
    def of(
        document: str, instruction: str, common: frozenset[str] = frozenset(), labels: Iterable[str] = ()
    ) -> "Source":
        """Facts of `document`; `instruction` is the prompt around it, `common` words that are no names,
        `labels` those of a classifier.

        What the document orders a model to do backs nothing, and may be repeated as little as the instruction.
        """
        document, orders = without_orders(document)
        known = vocabulary(document)
        return Source(
            text=document,
            vocabulary=known,
            stems=frozenset(word[:_STEM] for word in known if len(word) > 3),
            numbers=supported_numbers(document),
            counted=counted(document),
            runs=frozenset(runs(words(document), _COPIED_RUN)),
            instruction_runs=frozenset(runs(words(f"{instruction}\n{orders}"), _ECHOED_RUN)),
            common=common,
            spellings=name_spellings(document),
            handles=handles(document),
            gives_orders=bool(orders),
            labels=frozenset(labels),
        )

    def holds_name(self, name: str) -> bool:
        """Whether the document has a name: as a word, one slip away, or at an end of what stands before an `@`."""
        return is_named(name, self.vocabulary) or is_handle(name, self.handles) or is_misspelt(name, self.spellings)


Rule = Callable[[Answer, Source, SynthesisSection], str | None]


def unfinished(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer ran into its token limit or stops in the middle. (A line without a full stop is whole.)"""
    if not answer.finished:
        return f"cut off after {answer.tokens} tokens"
    found = _BREAKS_OFF.search(answer.text.strip())
    return f"breaks off at {found[0]!r}" if found else None


def length(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer is shorter or longer than the recipe's `synthesis.words`."""
    low, high = section.words
    count = len(answer.text.split())
    return None if low <= count <= high else f"{count} words, expected {low} to {high}"


def refusal(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The teacher declines."""
    found = _REFUSAL.search(answer.text.strip())
    return f"declines: {found[0]!r}" if found else None


def boilerplate(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer talks about itself or carries marks of a chat instead of being the summary."""
    found = _BOILERPLATE.search(answer.text.strip()) or _ABOUT_ITSELF.search(answer.text)
    if not found and "summa" not in source.stems:  # people may write to each other about a summary
        found = _SUMMARIZING.search(answer.text)
    return f"talk around the summary: {found[0]!r}" if found else None


def layout(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer is not one paragraph of plain text, or it is a line of a dialogue."""
    text = answer.text.strip()
    if "\n" in text:
        return f"{text.count(chr(10)) + 1} lines, expected one"
    if _SPEAKER.match(text):
        return "begins like a line of a dialogue or a list"
    return "markup" if _MARKUP.search(text) else None


def voice(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer speaks as somebody (I, we) outside of quotations, where a summary tells of others."""
    found = _FIRST_PERSON.search(_QUOTED.sub("", answer.text))
    return f"speaks in the first person: {found[0]!r}" if found else None


def echo(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer repeats the instruction."""
    echoed = [run for run in runs(words(answer.text), _ECHOED_RUN) if run in source.instruction_runs]
    return f"repeats the instruction: {' '.join(echoed[0])!r}" if echoed else None


def repetition(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer goes in circles."""
    items = words(answer.text)
    counts = Counter(runs(items, _REPEATED_RUN))
    worst, times = max(counts.items(), key=lambda item: item[1], default=((), 0))
    # Longer texts come back to what they are about.
    allowed = max(_REPEATED_TIMES, len(items) // _WORDS_PER_REPETITION)
    return f"says {' '.join(worst)!r} {times} times" if times >= allowed else None


def copying(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """Too many of the answer's words lie in runs of four that the source has too."""
    share = copied_share(answer.text, source)
    return f"{share:.0%} copied, at most {section.max_copied_share:.0%}" if share > section.max_copied_share else None


def copied_share(text: str, source: Source) -> float:
    """Share of a text's words that are part of a run of four that the source holds."""
    items = words(text)
    copied: set[int] = set()
    for start, run in enumerate(runs(items, _COPIED_RUN)):
        if run in source.runs:
            copied.update(range(start, start + _COPIED_RUN))
    return len(copied) / len(items) if items else 0.0


def invention(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """Too few of the answer's words that carry meaning are in the source, in this or another form."""
    told = [word for word in words(answer.text) if len(word) > 3 and word not in _MEANINGLESS]
    grounded = sum(word in source.vocabulary or word[:_STEM] in source.stems for word in told)
    share = grounded / len(told) if told else 0.0
    return (
        None if share >= _MIN_GROUNDED else f"{share:.0%} of its words are in the source, at least {_MIN_GROUNDED:.0%}"
    )


def unsupported_numbers(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer states a number that the source does not hold, or not of that thing (7 weeks, where 3 weeks are)."""
    strange = [
        number.written for number in numbers(answer.text) if number.certain and not _is_supported(number, source)
    ]
    return f"not in the source: {_some(strange)}" if strange else None


def _is_supported(number: Number, source: Source) -> bool:
    if not number.values & source.numbers:
        return False
    if number.written.count(".") > 1:  # 3.1.1 is the same section, whatever it is called
        return True
    return number.unit not in source.counted or bool(number.values & source.counted[number.unit])


def unsupported_names(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer names someone or something that the source does not.

    Where any word is capitalised, it counts as a name unless it is common: written small somewhere in the corpus.
    """
    strange = [
        name.word
        for name in names(answer.text)
        if not source.holds_name(name.word) and not (name.opening and _is_common(name.word, source.common))
    ]
    return f"not in the source: {_some(strange)}" if strange else None


def _is_common(word: str, common: frozenset[str]) -> bool:
    (bare,) = words(word)
    stems = {bare, *(bare.removesuffix(ending) for ending in ("s", "es", "ed", "d", "ing", "ly"))}
    return not stems.isdisjoint(common | _NEVER_NAMES)


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


RULES: dict[str, Rule] = {
    "unfinished": unfinished,
    "length": length,
    "refusal": refusal,
    "boilerplate": boilerplate,
    "layout": layout,
    "voice": voice,
    "echo": echo,
    "repetition": repetition,
    "copying": copying,
    "invention": invention,
    "numbers": unsupported_numbers,
    "names": unsupported_names,
}


def rejections(
    answer: Answer, source: Source, section: SynthesisSection, rules: Mapping[str, Rule] = RULES
) -> dict[str, str]:
    """Every rule that rejects the answer, with its reason; empty if the answer may be trained on."""
    verdicts = {name: rule(answer, source, section) for name, rule in rules.items()}
    return {name: reason for name, reason in verdicts.items() if reason is not None}


def common_words(documents: Iterable[str]) -> frozenset[str]:
    """Words that are written small somewhere in the documents: where one opens a sentence, it is no name."""
    return frozenset(word for text in documents for word in re.findall(r"(?<![^\W_])[^\W\d_]+", text) if word.islower())
