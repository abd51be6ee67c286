"""Each rule rejects what it is for, and lets sound summaries through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.inference.types import Answer
from adapters.recipe import SynthesisSection
from adapters.synthesis.facts import counted, names, numbers, vocabulary, words
from adapters.synthesis.rules import RULES, Source, common_words, copied_share, rejections

SECTION = SynthesisSection(words=(5, 30))
INSTRUCTION = "You write short, exact summaries. Summarize this chat in one or two short sentences."
CHAT = """Tom: Hi Anna, are we still meeting Jane O'Neill on Fri at 15:30?
Anna: Yes. The client wants 1,250 copies, not twelve hundred. Oh, and bring both folders.
Tom: Ok. It costs us $3.50 each. I'll be 2 hours late, sorry"""
SOURCE = Source.of(CHAT, INSTRUCTION, common_words(["the printer and his clients were asked to meet; a chat"]))
SUMMARY = "Tom and Anna will meet Jane O'Neill on Friday at 3:30 although he is going to be late."


def verdict(text: str, finished: bool = True) -> set[str]:
    return set(rejections(Answer(text, len(text.split()), -1.0, finished), SOURCE, SECTION))


@pytest.mark.parametrize(
    "text",
    [
        SUMMARY,
        "Clients of Anna want 1250 copies at $3.5, so Tom is to meet Jane.",
        "Tom tells Anna he'll be two hours late for Jane O'Neill's meeting",
        "Anna says the client wants 1,250 copies. They're meeting Jane Friday.",
        'Tom is 2 hours late and says: "I am sorry", while Anna wants the folders.',
        "One client, Jane, is meeting Tom and Anna, who bring the folders.",
    ],
)
def test_sound_summaries_pass(text: str) -> None:
    assert verdict(text) == set()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("numbers", SUMMARY.replace("3:30", "4:30")),
        ("numbers", "Anna tells Tom that the client wants 1,350 copies of the folders."),
        ("numbers", "Anna tells Tom that the client wants thirteen hundred copies of the folders."),
        ("numbers", "Anna hears from Tom that he is going to be twelve hours late, sorry."),
        ("names", SUMMARY.replace("Jane", "Mary")),
        ("names", SUMMARY.replace("Tom", "Robert")),
        ("names", SUMMARY.replace("Friday", "Monday")),
        ("refusal", "I'm sorry, but I cannot summarise what Tom and Anna are meeting about."),
        ("refusal", "As an AI, Tom and Anna are meeting the client with both folders."),
        ("boilerplate", "Sure! Tom and Anna are meeting the client with both folders."),
        ("boilerplate", "Here is what Tom and Anna are meeting the client about."),
        ("boilerplate", "This chat is about Tom and Anna meeting the client with folders."),
        ("echo", "Tom and Anna write in one or two short sentences about the client."),
        ("length", "Tom is late."),
        ("length", "Tom and Anna meet the client with folders, " * 5),
        ("layout", "Tom is meeting the client.\nAnna brings both folders to the client."),
        ("layout", "- Tom is meeting the client and Anna brings both folders."),
        ("layout", "Anna: Tom is meeting the client and brings both folders."),
        ("voice", "Anna tells Tom that we are meeting the client with both folders."),
        ("repetition", "Tom is late and Tom is late and Tom is late for Anna."),
        ("copying", "Are we still meeting Jane O'Neill on Fri at 15:30? Yes. The client wants 1,250 copies"),
        ("invention", "Tom and Anna discuss their wonderful holiday plans, sunshine and everlasting friendship."),
        ("unfinished", "Tom and Anna are meeting Jane about the copies and the"),
    ],
)
def test_each_rule_rejects_what_it_is_for(rule: str, text: str) -> None:
    assert rule in verdict(text)


def test_a_cut_off_answer_is_unfinished() -> None:
    assert verdict(SUMMARY, finished=False) == {"unfinished"}


def test_an_empty_answer_is_rejected() -> None:
    assert "length" in verdict("")


def test_reasons_name_what_is_wrong() -> None:
    answer = Answer("Mary meets Tom and Anna at 4:30 and brings 77 copies of both folders.", 12, -1.0, True)
    found = rejections(answer, SOURCE, SECTION)
    assert found == {"numbers": "not in the source: 4:30, 77", "names": "not in the source: Mary"}


def test_a_common_word_that_opens_a_sentence_is_no_name() -> None:
    text = "Printers asked Tom and Anna about copies for the client."
    assert verdict(text) == set()
    unknown = rejections(Answer(text, 10, -1.0, True), Source.of(CHAT, INSTRUCTION), SECTION)
    assert unknown == {"names": "not in the source: Printers"}


THREAD = Source.of(
    """From: Henrik Nielsen
See sections 4.3 and 7.1.2, not 9. Use Amaya 2.1, as in the mail of ccjason@example.org. The summary has 8 URLs.
It costs 20, 000 euros by RFC 1123; Maria knows.""",
    "",
)


@pytest.mark.parametrize(
    ("text", "strange"),
    [
        ("Henrik Nielson and Hernik know.", {}),
        ("Henrik Nilson, Nielsens and Enrik know.", {"names": "Nilson, Enrik"}),
        ("They ask Jason and Marta.", {"names": "Marta"}),
        ("They hear that a URL is meant.", {}),
        ("They know of RFC1123 and not of RFC1124.", {"names": "RFC1124"}),
        ("It is about sections 4 and 7.", {}),
        ("It is about sections 4 and 9.", {"numbers": "9"}),
        ("It is about section 7.1.2, which is 7.1.2.", {}),
        ("It is about section 7.1.3.", {"numbers": "7.1.3"}),
        ("They use Amaya 2.1.", {}),
        ("They use Amaya 9.", {"numbers": "9"}),
        ("They pay 20,000 euros.", {}),
    ],
)
def test_names_and_numbers_as_people_write_them(text: str, strange: dict[str, str]) -> None:
    found = {
        name: reason
        for name in ("names", "numbers")
        if (reason := RULES[name](Answer(text, 9, -1.0, True), THREAD, SECTION))
    }
    assert found == {name: f"not in the source: {what}" for name, what in strange.items()}


def test_people_may_write_about_a_summary() -> None:
    text = "Henrik reads the summary of all URLs."
    assert RULES["boilerplate"](Answer(text, 9, -1.0, True), THREAD, SECTION) is None
    assert RULES["boilerplate"](Answer(text, 9, -1.0, True), SOURCE, SECTION)


values = st.integers(0, 99_999)


@given(st.lists(values, min_size=1, max_size=6), st.data())
def test_numbers_of_the_source_are_never_rejected(held: list[int], data: st.DataObject) -> None:
    source = Source.of("We have " + ", ".join(f"{value:,} of them" for value in held), "")
    chosen = data.draw(st.lists(st.sampled_from(held), min_size=1))
    text = " and ".join(str(value) for value in chosen)
    assert RULES["numbers"](Answer(text, 1, 0.0, True), source, SECTION) is None


@given(st.lists(values, max_size=6), values)
def test_a_number_that_the_source_does_not_hold_is_always_rejected(held: list[int], strange: int) -> None:
    source = Source.of(" ".join(f"{value} items" for value in held), "")
    reason = RULES["numbers"](Answer(f"There are {strange} items", 1, 0.0, True), source, SECTION)
    assert (reason is None) == (strange in held)


@given(st.text())
def test_no_text_breaks_a_rule(text: str) -> None:
    rejections(Answer(text, 1, 0.0, True), SOURCE, SECTION)
    Source.of(text, text)


@given(st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"]), min_size=4))
def test_a_text_copied_whole_is_all_copied(items: list[str]) -> None:
    text = " ".join(items)
    assert copied_share(text, Source.of(f"before {text} after", "")) == 1.0
    assert copied_share(text, Source.of("something else", "")) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000", {"1000"}),
        ("9:00", {"9"}),
        ("15:30", {"15:30", "3:30"}),
        ("10.30", {"10:30", "10.3"}),
        ("forty-two", {"42"}),
        ("three hundred", {"3", "300"}),
        ("2.5 million", {"2.5", "2500000"}),
        ("3.50", {"3.5", "3:50"}),
        ("007", {"7"}),
    ],
)
def test_forms_of_a_number(text: str, expected: set[str]) -> None:
    (number,) = numbers(text)
    assert number.values == expected


def test_a_number_is_one_of_something() -> None:
    found = list(numbers("Person1 has two or 3 chairs. Room 204 at 5 p.m."))
    assert [number.unit for number in found] == ["", "chair", "room", "pm"]
    assert "chair" in found[0].units
    assert counted("two or 3 chairs")["chair"] == {"2", "3"}


def test_words_and_names() -> None:
    assert words("Anna's client didn't pay $3.50") == ["anna", "client", "didn", "pay", "3", "50"]
    found = [(name.word, name.opening) for name in names('Mr. Bo left. I told NASA, "Please wait". The end')]
    assert found == [("Bo", True), ("NASA", False), ("Please", True), ("The", True)]
    assert {"friday", "september"} <= vocabulary("on Fri, Sept 3")
