"""Each step of cleaning does what the recipe asks for, counts it, and shows examples without personal data."""

from typing import Any

import pytest

from adapters.data.cleaning import EXAMPLES, Cleaned, clean
from adapters.recipe import CleaningSection
from adapters.records import Record

ENGLISH = "The meeting about the new kitchen is moved to Thursday, and everybody brings their own lunch this time."
GERMAN = "Die Besprechung über die neue Küche ist auf Donnerstag verschoben, und alle bringen ihr Mittagessen mit."


def record(name: str, text: str, target: str | list[str] | None = None) -> Record:
    return Record(id=name, use_case="email", input=text, target=target, source="s", license="l")


def cleaned(*records: Record, **section: Any) -> Cleaned:
    return clean(records, CleaningSection(**section))


def test_wrongly_decoded_texts_are_repaired_and_right_ones_left_alone() -> None:
    right = "“Café” costs 5 € — ﬁne…\n\ttabs and &amp; stay 🙃"
    records = [record("a", "The cafÃ© isnâ€™t open\x07", ["Itâ€™s shut"]), record("b", right), record("c", ENGLISH)]
    result = cleaned(*records)
    assert [(one.input, one.targets) for one in result.records[:1]] == [("The café isn’t open", ["It’s shut"])]
    assert result.records[1:] == records[1:]
    assert result.report()["cleaning"]["encoding"] == {"seen": 3, "changed": 1, "removed": 0}
    assert result.report()["examples"]["encoding"] == [{"id": "a", "reason": "changed", "text": "The café isn’t open"}]


def test_what_is_nothing_but_control_characters_goes() -> None:
    result = cleaned(record("a", "\x07\x1b"), record("b", "kept", ""))
    assert [one.id for one in result.records] == ["b"], "an empty target is not cleaning's to judge"
    assert result.removed[0].reason.startswith("nothing is left")


def test_personal_data_is_replaced_in_input_and_targets() -> None:
    result = cleaned(record("a", "Write to ann@example.org or +44 20 7946 0958.", "Ann is at ann@example.org."))
    assert result.records[0].input == "Write to [EMAIL_1] or [PHONE_1]."
    assert result.records[0].target == "Ann is at [EMAIL_1]."
    assert result.report()["personal"] == {"email": 2, "phone": 1}
    untouched = record("a", "ann@example.org")
    assert cleaned(untouched, personal=[]).records == [untouched]


def test_other_languages_go_if_the_recipe_names_some() -> None:
    records = [
        record("en", ENGLISH),
        record("de", GERMAN),
        record("short", "Guten Tag, Frau Lee"),
        record("t", ENGLISH, GERMAN),
    ]
    result = cleaned(*records, languages=["en"])
    assert [one.id for one in result.records] == ["en", "short"], "a short text is no evidence"
    assert [(one.step, one.reason) for one in result.removed] == [
        ("language", "a text is in 'de'; the recipe asks for en")
    ] * 2
    assert len(cleaned(*records, languages=["en", "de"]).records) == len(cleaned(*records).records) == 4


@pytest.mark.parametrize(("profanity", "left"), [("keep", "ab"), ("targets", "a"), ("remove", "")])
def test_profanity(profanity: str, left: str) -> None:
    records = [record("a", "fix this shit today", "please fix it"), record("b", "fix it", "fix this sh1t")]
    result = cleaned(*records, profanity=profanity)
    assert "".join(one.id for one in result.records) == left
    if profanity == "remove":
        assert [one.reason for one in result.removed] == [
            "profanity in the input: 'shit'",
            "profanity in a target: 'sh1t'",
        ]


def test_examples_are_few_and_hold_nothing_personal() -> None:
    mails = [record(str(n), f"{GERMAN} Mehr unter anna{n}@example.org, ein schöner Gruß von hier.") for n in range(9)]
    result = cleaned(*mails, personal=[], languages=["en"])
    shown = result.report()["examples"]["language"]
    assert len(shown) == EXAMPLES
    assert result.report()["cleaning"]["language"]["removed"] == len(result.removed) == 9
    assert not any("@" in str(one) for one in shown)


def test_a_change_is_shown_where_it_is() -> None:
    text = "word " * 100 + "cafÃ© " + "word " * 100
    (shown,) = cleaned(record("a", text)).report()["examples"]["encoding"]
    assert "café" in shown["text"]
    assert len(shown["text"]) < 200


def test_every_record_is_kept_or_removed_and_steps_see_what_the_ones_before_left() -> None:
    records = [record("a", ENGLISH), record("b", GERMAN), record("c", "\x07"), record("d", "shit", "x")]
    result = cleaned(*records, languages=["en"], profanity="remove")
    assert len(result.records) + len(result.removed) == len(records)
    seen = {name: step["seen"] for name, step in result.report()["cleaning"].items()}
    assert seen == {"encoding": 4, "personal": 3, "language": 3, "profanity": 2}
