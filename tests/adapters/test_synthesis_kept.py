"""What teachers wrote is kept: nothing is generated twice, and records are forgotten wherever they stand."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.inference.types import Prompt, Sampling
from adapters.records import write_records
from adapters.synthesis.audit import DRAFTS, expire, forget, latest_audit, read_audit, write_audit
from adapters.synthesis.drafts import Drafts, Member
from adapters.synthesis.synthesize import STACKS, chosen_documents
from infra.errors import FactoryError
from tests.adapters.test_synthesis_synthesize import (
    GOOD,
    TEXTS,
    TableTeacher,
    accepted,
    make_recipe,
    rows_of,
    run,
    teacher,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_records(tmp_path / "data" / "unlabelled.jsonl", rows_of(TEXTS))
    write_records(tmp_path / "data" / "training.jsonl", [])
    return tmp_path / "data"


def test_a_prompt_that_occurs_twice_is_generated_once(tmp_path: Path) -> None:
    asked = [(record, Prompt("", text)) for record, text in zip(rows_of("abc"), [*TEXTS[:2], TEXTS[0]], strict=True)]
    base = teacher(*([text] for text in GOOD))
    answers = Drafts(tmp_path).answers(Member("m", "m", lambda: base), asked, Sampling(8), "drafts")
    assert [made[0].text for made in answers] == [GOOD[0], GOOD[1], GOOD[0]]
    assert [prompt.user for prompt in base.asked] == TEXTS[:2]


KILLED = """
import sys, time
from pathlib import Path
from adapters.inference.types import Answer, Prompt, Sampling
from adapters.records import Record
from adapters.synthesis.drafts import Drafts, Member

class Slow:
    def generate(self, prompts, sampling, on_answers):
        for n, prompt in enumerate(prompts):
            on_answers(n, [Answer("made by " + sys.argv[2], 3, -1.0, True)])
            print(prompt.user, flush=True)
            if sys.argv[2] == "first" and n == 4:
                sys.stdin.read()

asked = [(Record(id=str(n), use_case="u", input="x", source="s", license="l"), Prompt("", str(n))) for n in range(9)]
answers = Drafts(Path(sys.argv[1])).answers(Member("m", "m", Slow), asked, Sampling(8), "drafts")
print(" ".join(row[0].text.split()[-1] for row in answers))
"""


def test_kill_9_loses_at_most_what_was_in_flight(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    with start("first") as first:
        assert first.stdout is not None
        assert [first.stdout.readline().strip() for _ in range(5)] == list("01234")
        first.send_signal(signal.SIGKILL)
    with start("second") as second:
        out, _ = second.communicate(timeout=60)
    assert out.split() == [*"5678", *["first"] * 5, *["second"] * 4]


def test_what_teachers_wrote_is_forgotten_with_the_record_and_after_a_while(data: Path) -> None:
    run(make_recipe(candidates=1), data, base=teacher(*([text] for text in GOOD)))
    folder = data.parent / "kept"
    assert forget(folder, {"r1"}) == 2, "a candidate and a draft"
    assert {row["id"] for row in read_audit(latest_audit(folder))} == {"r0", "r2"}
    assert all(b"r1" not in path.read_bytes() and b"Ben" not in path.read_bytes() for path in folder.glob("*/*"))
    assert expire(folder, days=1) == 0
    for path in folder.glob("*/*"):
        os.utime(path, (0, 0))
    assert expire(folder, days=1) == 2
    with pytest.raises(FactoryError, match="no audit table"):
        latest_audit(folder)


def test_to_forget_a_record_makes_no_table_newer(data: Path) -> None:
    run(make_recipe(candidates=1), data, base=teacher(*([text] for text in GOOD)))
    folder = data.parent / "kept"
    (table,), (drafts,) = (list(folder.glob(name)) for name in ("tables/*", "drafts/*"))
    newest = table.with_name("newer.parquet")
    newest.write_bytes(table.read_bytes())
    for path, time in ((table, 1000), (drafts, 1000), (newest, 2000)):
        os.utime(path, (time, time))
    old = table.with_name("old.parquet")
    write_audit(old, [row for row in read_audit(table) if row["id"] == "r1"])
    os.utime(old, (500, 500))
    assert latest_audit(folder) == newest
    assert forget(folder, {"r1"}) == 4
    assert latest_audit(folder) == newest
    assert [path.stat().st_mtime for path in (old, table, drafts, newest)] == [500, 1000, 1000, 2000]


def test_drafts_of_long_ago_expire_though_others_are_added(data: Path) -> None:
    run(make_recipe(candidates=1), data, base=teacher(*([text] for text in GOOD)))
    folder = data.parent / "kept"
    (before,) = (folder / DRAFTS).glob("*")
    before = before.rename(before.with_name(before.name.replace(before.stem[-10:], "2001-02-03")))
    os.utime(before, (0, 0))
    write_records(data / "unlabelled.jsonl", rows_of([*TEXTS, TEXTS[0] + " for Anna"]))
    more = teacher(*([text] for text in GOOD))
    more.texts[TEXTS[0] + " for Anna"] = [GOOD[0]]
    run(make_recipe(candidates=1), data, base=more)
    assert len(more.asked) == 1, "drafts of all days count"
    assert before.stat().st_mtime == 0 and len(list((folder / DRAFTS).glob("*"))) == 2
    assert expire(folder, days=1) == 1 and not before.exists()


def test_all_records_of_a_stack_are_known(data: Path) -> None:
    notes = ["Chat - Anna says that dinner moved to Friday", "Mail - the landlord asks about the broken boiler"]
    notes += ["News - rain is expected tomorrow"]
    write_records(data / "unlabelled.jsonl", rows_of(notes))
    stack = "\n".join(record.input for record in chosen_documents(rows_of(notes), 9))
    answer = "Anna moved dinner to Friday and the landlord asks about a broken boiler."
    rows = run(make_recipe(tasks={"email": "digest"}, candidates=1), data, base=TableTeacher({stack: [answer]}))
    (named,) = rows
    assert [row.target for row in accepted(data)] == [answer]
    assert json.loads((data.parent / "output" / STACKS).read_text()) == {named: ["r0", "r1", "r2"]}
    other = next(name for name in ("r0", "r1", "r2") if name != named)
    folder = data.parent / "kept"
    assert forget(folder, {other}) == 2, "a candidate and a draft"
    assert read_audit(latest_audit(folder)) == [] and all(path.read_bytes() == b"" for path in folder.glob("drafts/*"))
