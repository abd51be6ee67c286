"""Personal data is found where it is, not where it is not, and becomes the same placeholder everywhere in a record."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adapters.features
from adapters.data.personal import KINDS, find_personal, replace_personal
from adapters.records import read_records

PERSONAL = {
    "email": ["ann.lee+x@mail.example.org", "a_b@example.co.uk", "JO@EXAMPLE.COM"],
    "url": ["https://example.org/a?b=c#d", "www.example.org/x", "example.com/path", "ftp://files.example.org"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NL91 ABNA 0417 1643 00"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "national_id": ["536-90-4399", "12345678Z", "RSSMRA85T10A562S", "131052-308T", "811218-9876", "756.9217.0769.85"],
    "ip": ["192.168.10.25", "2001:db8::8a2e:370:7334", "fe80::1ff:fe23:4567:890a"],
    "phone": ["+44 20 7946 0958", "(212) 736-5000", "+49 30 901820", "020 7946 0958"],
}
HARMLESS = [
    "The meeting is at 17:42:05 on 2026-11-23, room 4.12, and lasts 90 minutes.",
    "Order 4111 1111 1111 1112 was split; invoice 123-45-678 and parcel 00340434161094042557 are on their way.",
    "Version 1.2.3 replaces 10.4, at 3.50 a piece; see section 2.1.1.",
    "We sold 1,234,567 units in 2024 and 2025, up 12.5%, for 1.940.000,00 in all.",
    "The score was 21-19, 17-21, 22-20; the train leaves from platform 9 3/4.",
    "See sections 9.4.10.1 and § 15.1.8.1 of version 1.2.3.4; parcel FDX-2024-908765, transaction PP-2024-001847.",
    "Call me@ the office, or ask @jo. DE89 is the model, AB12 3456 the part.",
]


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in KINDS for value in PERSONAL[kind]])
def test_it_is_found_whole_and_as_what_it_is(kind: str, value: str) -> None:
    for text in (f"Here it is: {value}. Thanks.", f"({value})", value, f"{value}\nand more"):
        found = find_personal(text, regions=["US", "GB"])
        assert [(one.kind, text[one.start : one.end]) for one in found] == [(kind, value)], text


@pytest.mark.parametrize("text", HARMLESS)
def test_numbers_are_not_personal_by_themselves(text: str) -> None:
    assert find_personal(text, regions=["US", "GB"]) == []


def test_the_same_value_gets_the_same_placeholder_in_all_texts_of_a_record() -> None:
    texts = ["Mail a@b.org or c@d.org, phone +44 20 7946 0958.", "Mail A@B.ORG or phone +442079460958; not e@f.org."]
    replaced, counts = replace_personal(texts)
    assert replaced == [
        "Mail [EMAIL_1] or [EMAIL_2], phone [PHONE_1].",
        "Mail [EMAIL_1] or phone [PHONE_1]; not [EMAIL_3].",
    ]
    assert counts == {"email": 4, "phone": 2}


def test_only_the_kinds_that_are_asked_for() -> None:
    text = "a@b.org, +44 20 7946 0958"
    assert replace_personal([text], kinds=["phone"])[0] == ["a@b.org, [PHONE_1]"]


NAMED = [
    (
        ["From: Roe, Anna\nSubject: Lease\n\nDear Tom,\nAnna here; call Bob.\nBest regards,\nAnna",
         "Anna asks Tom to call Bob."],
        ["From: [NAME_1]\nSubject: Lease\n\nDear [NAME_2],\n[NAME_1] here; call Bob.\nBest regards,\n[NAME_1]",
         "[NAME_1] asks [NAME_2] to call Bob."],
    ),
    (
        ["Anna Roe: will Will come?\nWill: no, Anna, I'm at Roe's", "Anna asks Will."],
        ["[NAME_1]: will [NAME_2] come?\n[NAME_2]: no, [NAME_1], I'm at [NAME_1]'s", "[NAME_1] asks [NAME_2]."],
    ),
    (["Dear all,\nNote: Jane Roe is away.\nThe team"], ["Dear all,\nNote: Jane Roe is away.\nThe team"]),
    (["From: jane@example.org\n\nHi Ann - bye"], ["From: [EMAIL_1]\n\nHi [NAME_1] - bye"]),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "expected"), NAMED)
def test_people_whom_the_form_of_a_record_names(texts: list[str], expected: list[str]) -> None:
    assert replace_personal(texts, kinds=[*KINDS, "name"])[0] == expected
    assert not any("NAME" in text for text in replace_personal(texts)[0]), "only on request"


@given(st.lists(st.sampled_from([value for values in PERSONAL.values() for value in values]), min_size=1, max_size=6))
def test_nothing_personal_is_left_and_nothing_else_is_lost(values: list[str]) -> None:
    text = " then ".join(values)
    ((replaced,), counts) = replace_personal([text], regions=["US", "GB"])
    assert counts.total() == len(values)
    assert not any(value in replaced for value in values)
    assert replaced.count(" then ") == len(values) - 1
    assert replace_personal([replaced], regions=["US", "GB"])[0] == [replaced], "placeholders are not personal"


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    ((replaced,), counts) = replace_personal([text], kinds=[*KINDS, "name"])
    assert counts or replaced == text


def test_the_shipped_corpora_have_few_and_true_findings() -> None:
    folder = Path(*adapters.features.__path__)
    found = {
        record.input[one.start : one.end]: one.kind
        for path in folder.glob("*/corpus/*.jsonl")
        for record in read_records(path)[0]
        for one in find_personal(record.input, regions=["US", "GB"])
    }
    assert found == {}, "invented people have no numbers; what is found is none"
