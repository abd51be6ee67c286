"""What runs leave for the plan: kept by subject, over processes, and never in the way."""

from pathlib import Path

from infra.run_notes import RunNotes


def test_notes_are_kept_by_subject(tmp_path: Path) -> None:
    notes = RunNotes(tmp_path)
    notes.took("writing", "training", 1.5)
    notes.took("writing", "training", 2.5)
    notes.took("writing", "data", 0.25)
    notes.took("base", "recovery", 9.0)
    notes.stopped("writing", "key", "too many bad rows")
    again = RunNotes(tmp_path)
    assert again.seconds() == {"writing": {"training": 2.5, "data": 0.25}, "base": {"recovery": 9.0}}
    assert again.stops() == {"writing": ("key", "too many bad rows")}
    again.went_on("writing")
    again.went_on("base")
    assert RunNotes(tmp_path).stops() == {}
    assert RunNotes(tmp_path).seconds()["writing"] == {"training": 2.5, "data": 0.25}


def test_a_missing_or_damaged_file_costs_the_notes_and_no_more(tmp_path: Path) -> None:
    assert (RunNotes(tmp_path).seconds(), RunNotes(tmp_path).stops()) == ({}, {})
    (tmp_path / "runs.json").write_text("{")
    assert RunNotes(tmp_path).seconds() == {}
    RunNotes(tmp_path).took("writing", "data", 1.0)
    assert RunNotes(tmp_path).seconds() == {"writing": {"data": 1.0}}
