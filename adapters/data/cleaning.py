"""Cleaning of single records, in steps: each repairs a text, or says why the record goes.

Steps run in this order, each only if the recipe asks for it: `encoding` (ftfy), `personal` (placeholders), `language`,
`profanity`, `quality`. What no step removes keeps its id, so a version can still name what it was trained on.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from adapters.data.language import language_of
from adapters.data.personal import replace_personal
from adapters.data.profanity import profane_words
from adapters.data.quality import QualityModel, load_quality
from adapters.recipe import CleaningSection
from adapters.records import Record

EXAMPLES = 5
_AROUND = 70
_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")  # a text without any needs no repair, and most have none


@dataclass(frozen=True)
class Removed:
    """A record that a step took out, and why."""

    step: str
    reason: str
    record: Record


@dataclass(frozen=True)
class Example:
    """What a step did to one record. The text has placeholders for what is personal."""

    id: str
    reason: str
    text: str


@dataclass
class Step:
    """What a step did: records seen, changed and removed, and the first examples."""

    seen: int = 0
    changed: int = 0
    removed: int = 0
    examples: list[Example] = field(default_factory=list)

    def removes(self, record: Record, reason: str) -> None:
        """Count a removed record."""
        self.removed += 1
        self._show(record, reason, 0)

    def changes(self, before: Record, after: Record) -> None:
        """Count a changed record, shown where it first differs."""
        self.changed += 1
        pairs = zip(_texts(before), _texts(after), strict=True)
        old, new = next((old, new) for old, new in pairs if old != new)
        start = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        self._show(after.model_copy(update={"input": new}), "changed", start)

    def _show(self, record: Record, reason: str, start: int) -> None:
        if len(self.examples) < EXAMPLES:
            # Replaced whole, then cut: half an address would not be found.
            begin = record.input[: max(0, start - _AROUND)]
            text = _private(record.input)[len(_private(begin)) if begin else 0 :][: 2 * _AROUND]
            self.examples.append(Example(record.id, _private(reason), text))


@dataclass(frozen=True)
class Cleaned:
    """What is left, what was removed, and what each step did."""

    records: list[Record]
    removed: list[Removed]
    steps: dict[str, Step]
    personal: Counter[str]

    def report(self) -> dict[str, Any]:
        """Counts by step, examples by step, and replaced personal data by kind, as plain values."""
        counts = {
            name: {"seen": step.seen, "changed": step.changed, "removed": step.removed}
            for name, step in self.steps.items()
        }
        examples = {name: [asdict(one) for one in step.examples] for name, step in self.steps.items() if step.examples}
        return {"cleaning": counts, "personal": dict(self.personal), "examples": examples}


def clean(records: Iterable[Record], section: CleaningSection) -> Cleaned:
    """Run the steps that the recipe asks for over each record, in one pass."""
    personal: Counter[str] = Counter()
    work = _work(section, personal)
    cleaned = Cleaned([], [], {name: Step() for name in work}, personal)
    for record in records:
        for name, apply in work.items():
            step = cleaned.steps[name]
            step.seen += 1
            outcome = apply(record)
            if isinstance(outcome, str):
                step.removes(record, outcome)
                cleaned.removed.append(Removed(name, outcome, record))
                break
            if outcome is not record:
                step.changes(record, outcome)
                record = outcome
        else:
            cleaned.records.append(record)
    return cleaned


# What a step makes of a record: the same one, a changed one, or the reason why it goes.
Apply = Callable[[Record], Record | str]


def _work(section: CleaningSection, personal: Counter[str]) -> dict[str, Apply]:
    work: dict[str, Apply] = {}
    if section.encoding:
        work["encoding"] = _repair
    if section.personal:
        work["personal"] = lambda record: _replace(record, section, personal)
    if section.languages:
        work["language"] = lambda record: _in_language(record, section.languages)
    if section.profanity != "keep":
        work["profanity"] = lambda record: _decent(record, inputs_too=section.profanity == "remove")
    if section.quality is not None:
        model, threshold = load_quality(), section.quality
        work["quality"] = lambda record: _good(record, model, threshold)
    return work


def _repair(record: Record) -> Record | str:
    repaired = [_repaired(text).strip() for text in _texts(record)]
    if any(old and not new for old, new in zip(_texts(record), repaired, strict=True)):
        return "nothing is left once control characters are gone"
    return _with_texts(record, repaired)


def _repaired(text: str) -> str:
    """A text whose characters were decoded wrongly, as it was meant. Quotes, ligatures and widths stay as written."""
    if _UNUSUAL.search(text) is None:
        return text
    from ftfy import fix_text

    return str(fix_text(text, _ftfy()))


@cache
def _ftfy() -> Any:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        explain=False,
    )


def _replace(record: Record, section: CleaningSection, personal: Counter[str]) -> Record:
    texts, replaced = replace_personal(_texts(record), section.personal, section.phone_regions)
    personal.update(replaced)
    return _with_texts(record, texts)


def _in_language(record: Record, languages: Sequence[str]) -> Record | str:
    for text in _texts(record):
        found = language_of(text)
        if found is not None and found not in languages:
            return f"a text is in {found!r}; the recipe asks for {', '.join(languages)}"
    return record


def _decent(record: Record, inputs_too: bool) -> Record | str:
    for text in _texts(record) if inputs_too else record.targets:
        found = profane_words(text)
        if found:
            return f"profanity in {'a target' if text != record.input else 'the input'}: {found[0]!r}"
    return record


def _good(record: Record, model: QualityModel, threshold: float) -> Record | str:
    score = model.score(record.input)
    return record if score >= threshold else f"quality {score:.2f} of the input is below {threshold:g}"


def _texts(record: Record) -> list[str]:
    return [record.input, *record.targets]


def _with_texts(record: Record, texts: Sequence[str]) -> Record:
    """The record with other texts; itself if they are the same."""
    if list(texts) == _texts(record):
        return record
    target = None if record.target is None else texts[1] if isinstance(record.target, str) else list(texts[1:])
    return record.model_copy(update={"input": texts[0], "target": target})


def _private(text: str) -> str:
    return replace_personal([text])[0][0]
