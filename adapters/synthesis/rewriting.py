"""Rules for the other tasks: what a rewriting keeps, what a label says. Rules of summaries: `rules.py`."""

import re
from dataclasses import replace

from adapters.inference.types import Answer
from adapters.recipe import SynthesisSection, Task
from adapters.synthesis.facts import is_named, names, numbers, supported_numbers, vocabulary, words
from adapters.synthesis.rules import RULES, Rule, Source

_LABELLED = re.compile(r"\W*(?P<label>[\w-]+)\W*?[:–—-]\s*(?P<reason>.+)", re.DOTALL)


def unchanged(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer is the text as it was."""
    return "says the text again" if words(answer.text) == words(source.text) else None


def facts_lost(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer leaves out a number or a name of the text."""
    values, known = supported_numbers(answer.text), vocabulary(answer.text)
    lost = [number.written for number in numbers(source.text) if number.certain and not number.values & values]
    lost += [name.word for name in names(source.text) if not name.opening and not is_named(name.word, known)]
    return f"leaves out {', '.join(lost[:3])}" if lost else None


def no_label(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
    """The answer is not `label: reason` with one of the feature's labels."""
    found = _LABELLED.fullmatch(answer.text.strip())
    return None if found and found["label"] in source.labels else "no label of the feature, or no reason"


def _on_reason(rule: Rule) -> Rule:
    """A rule that judges the reason of an answer `label: reason`, and nothing where there is none."""

    def judge(answer: Answer, source: Source, section: SynthesisSection) -> str | None:
        found = _LABELLED.fullmatch(answer.text.strip())
        return rule(replace(answer, text=found["reason"]), source, section) if found else None

    return judge


_REWRITING = ("unfinished", "refusal", "boilerplate", "echo", "repetition", "numbers", "names")
RULES_OF: dict[Task, dict[str, Rule]] = {
    "summarize": RULES,
    "digest": RULES,
    "rewrite": {name: RULES[name] for name in _REWRITING} | {"unchanged": unchanged, "facts_lost": facts_lost},
    "classify": {
        "unfinished": RULES["unfinished"],
        "label": no_label,
        "numbers": _on_reason(RULES["numbers"]),
        "names": _on_reason(RULES["names"]),
    },
    "damage": {},
}


def target_of(task: Task, answer: Answer) -> str:
    """What an adapter would learn from an answer: the label without its reason, any other text as it is."""
    text = answer.text.strip()
    if task == "classify" and (found := _LABELLED.fullmatch(text)):
        return found["label"]
    return text
