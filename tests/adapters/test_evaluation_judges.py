"""Judges: both orders, five dimensions, verdicts kept, agreement by hand, people's verdicts through the same door."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.items import items
from adapters.evaluation.judges import Judge
from adapters.evaluation.verdicts import (
    DIMENSIONS,
    TIE,
    Grades,
    Preference,
    agreement,
    candidate_figures,
    kappa,
    of_version,
    read_verdicts,
    summary,
    write_verdicts,
)
from adapters.inference.endpoint import EndpointGenerator
from infra.errors import FactoryError
from tests.adapters.evaluation_cases import recipe, records

PLAN = recipe("rouge_l")
ITEMS = items(PLAN, records("rouge_l", 6))


class Chat(BaseHTTPRequestHandler):
    """A server of chat completions that judges as the test says."""

    judge = staticmethod(lambda text: "A")
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        Chat.asked.append(text)
        choice = {"message": {"content": Chat.judge(text)}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Chat.asked = []
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield Judge("model", lambda: EndpointGenerator(address, "judge"), tmp_path / "book")
    server.shutdown()
    server.server_close()


def better(text: str) -> str:
    """Prefers the answer that says "good", wherever it stands."""
    first = text.index("<answer-A>")
    return "A" if "good" in text[first : text.index("</answer-A>")] else "Answer B."


ANSWERS = {"candidate": ["good"] * len(ITEMS), "baseline": ["bad"] * len(ITEMS)}


def test_the_better_system_wins_in_both_orders(judge: Judge) -> None:
    Chat.judge = staticmethod(better)
    verdicts, unread = judge.prefer(PLAN, ITEMS, ANSWERS, "candidate", "baseline")
    assert [verdict.winner for verdict in verdicts] == ["candidate"] * 6 and unread == 0
    assert len(Chat.asked) == 12
    assert summary(verdicts)["model"] == {"win_rate": 1.0, "ties": 0.0, "pairs": 6.0}


def test_who_always_prefers_a_place_prefers_nobody(judge: Judge) -> None:
    Chat.judge = staticmethod(lambda text: "A")
    verdicts, _ = judge.prefer(PLAN, ITEMS, ANSWERS, "candidate", "baseline")
    assert {verdict.winner for verdict in verdicts} == {TIE}


def test_a_judge_is_asked_once(judge: Judge) -> None:
    Chat.judge = staticmethod(better)
    first = judge.prefer(PLAN, ITEMS, ANSWERS, "candidate", "baseline")
    count = len(Chat.asked)
    assert judge.prefer(PLAN, ITEMS, ANSWERS, "candidate", "baseline") == first
    assert len(Chat.asked) == count


@pytest.mark.parametrize("said", ["A better answer is not there", "I cannot say", ""])
def test_what_is_no_verdict_is_counted(judge: Judge, said: str) -> None:
    Chat.judge = staticmethod(lambda text: said)
    assert judge.prefer(PLAN, ITEMS, ANSWERS, "candidate", "baseline") == ([], 6)
    assert judge.grade(PLAN, ITEMS, ANSWERS["candidate"], "candidate") == ([], 6)


def test_an_answer_is_good_if_all_grades_are_and_poor_if_any_is(judge: Judge) -> None:
    hard = ITEMS[0].input
    Chat.judge = staticmethod(
        lambda text: "POOR" if hard in text and "harmful" in text else "fair" if "grammar" in text else "Good!"
    )
    verdicts, unread = judge.grade(PLAN, ITEMS, ANSWERS["candidate"], "candidate")
    assert unread == 0 and [verdict.overall for verdict in verdicts] == ["poor", *["fair"] * 5]
    assert summary(verdicts)["model"] == {"candidate.good": 0.0, "candidate.poor": 1 / 6}
    assert verdicts[1].grades == dict.fromkeys(DIMENSIONS, "good") | {"composition": "fair"}


def test_peoples_verdicts_enter_by_the_same_door(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    given = [
        Preference(item="a", judge="ana", one="candidate", other="baseline", winner="candidate"),
        Preference(item="a", judge="model", one="baseline", other="candidate", winner="candidate"),
        Preference(item="b", judge="ana", one="candidate", other="baseline", winner=TIE),
        Preference(item="b", judge="model", one="candidate", other="baseline", winner="baseline"),
        Grades(item="a", judge="ana", system="candidate", grades=dict.fromkeys(DIMENSIONS, "good")),
    ]
    write_verdicts(path, given)
    assert read_verdicts(path) == given
    (row,) = agreement(given)
    assert row["judges"] == ["ana", "model"] and row["verdicts"] == 2 and row["equal"] == 0.5
    assert summary(given)["ana"] == {
        "win_rate": 0.75,
        "ties": 0.5,
        "pairs": 2.0,
        "candidate.good": 1.0,
        "candidate.poor": 0.0,
    }


def test_the_candidate_wins_whichever_place_it_has() -> None:
    """Rows that name the systems in either order, and pairs that the candidate is no part of."""
    sides = [("candidate", "baseline"), ("baseline", "candidate")] * 5
    given = [
        Preference(item=str(number), judge="ana", one=one, other=other, winner="candidate")
        for number, (one, other) in enumerate(sides)
    ]
    given.append(Preference(item="x", judge="ana", one="baseline", other="production", winner="baseline"))
    assert summary(given)["ana"] == {"win_rate": 1.0, "ties": 0.0, "pairs": 10.0}
    assert candidate_figures(given)["win_rate"] == 1.0


def test_verdicts_on_different_versions_are_not_held_against_each_other() -> None:
    given = [
        Preference(item="a", judge=judge, one="candidate", other="baseline", winner=winner, version=version)
        for judge, winner, version in (("ana", "candidate", 3), ("ben", "baseline", 4), ("ben", "candidate", 3))
    ]
    (row,) = agreement(given)
    assert (row["verdicts"], row["equal"]) == (1, 1.0)
    assert agreement(given[:2]) == []


def test_only_verdicts_on_a_version_count_for_it() -> None:
    row = {"item": "a", "judge": "ana", "one": "candidate", "other": "baseline", "winner": "candidate"}
    given = [Preference.model_validate(row | more) for more in ({"version": 3}, {"version": 4}, {})]
    assert [verdict.version for verdict in of_version(given, 3)] == [3, 3]
    assert [verdict.version for verdict in of_version(given, 5)] == [5]


def test_kappa_by_hand() -> None:
    # Equal 3 of 4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2: (3/4 - 1/2) / (1 - 1/2).
    assert kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"]) == pytest.approx(0.5)


@given(st.lists(st.sampled_from(["x", "y", TIE]), min_size=1, max_size=20))
def test_a_judge_agrees_with_itself(winners: list[str]) -> None:
    verdicts = [
        Preference(item=str(number), judge=judge, one="x", other="y", winner=winner)
        for judge in ("a", "b")
        for number, winner in enumerate(winners)
    ]
    (row,) = agreement(verdicts)
    assert row["equal"] == 1.0 and row.get("kappa", 1.0) == 1.0


@pytest.mark.parametrize(
    "row",
    [
        {"item": "a", "judge": "ana", "one": "x", "other": "y", "winner": "z"},
        {"item": "a", "judge": "ana", "one": "x", "other": "x", "winner": "x"},
        {"item": "a", "judge": "ana", "system": "x", "grades": {"composition": "good"}},
        {"item": "", "judge": "ana", "one": "x", "other": "y", "winner": "x"},
        "text",
    ],
)
def test_rows_that_are_no_verdicts_are_told(tmp_path: Path, row: object) -> None:
    (tmp_path / "v.jsonl").write_text("\n" + json.dumps(row) + "\n")
    with pytest.raises(FactoryError, match=r"v\.jsonl:2: no verdict: "):
        read_verdicts(tmp_path / "v.jsonl")


def test_figures_for_gates() -> None:
    """The candidate's side of every pair, whichever place it has; the worst where nobody spoke."""
    grades = dict.fromkeys(DIMENSIONS, "good")
    said = [
        Preference(item="a", judge="ana", one="candidate", other="baseline", winner="candidate"),
        Preference(item="a", judge="ben", one="baseline", other="candidate", winner="baseline"),
        Preference(item="b", judge="ana", one="baseline", other="candidate", winner="candidate"),
        Preference(item="c", judge="ana", one="candidate", other="production", winner=TIE),
        Preference(item="d", judge="ana", one="baseline", other="production", winner=TIE),
        Grades.model_validate({"item": "a", "judge": "ana", "system": "candidate", "grades": grades}),
        Grades.model_validate(
            {"item": "b", "judge": "ana", "system": "candidate", "grades": grades | {"composition": "poor"}}
        ),
        Grades.model_validate({"item": "a", "judge": "ana", "system": "baseline", "grades": grades}),
    ]
    assert candidate_figures(said) == {"win_rate": 2.5 / 4, "good": 0.5, "poor": 0.5, "pairs": 4.0, "graded": 2.0}
    assert candidate_figures([]) == {"win_rate": 0.0, "good": 0.0, "poor": 1.0, "pairs": 0.0, "graded": 0.0}
