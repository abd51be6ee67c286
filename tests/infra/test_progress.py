"""Progress: a bar on a terminal, plain lines elsewhere, and texts shown as they are."""

import io

import pytest
from rich.console import Console

from infra import progress
from infra.progress import track


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a log file gets."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, width=120))
    return text


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, width=120, force_terminal=True, color_system=None))
    return text


def test_log_lines_tell_done_total_and_time_left(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    clock = iter(range(100))
    monkeypatch.setattr("infra.progress.time.monotonic", lambda: next(clock))
    with track("training", total=4) as step:
        step.advance(1)
        step.advance(1, note="loss 1.25")
    assert shown.getvalue().splitlines() == ["  training: 1/4, 3 s left ", "  training: 2/4, 2 s left loss 1.25"]


def test_quick_work_logs_nothing(shown: io.StringIO) -> None:
    with track("quick", total=100) as step:
        for _ in range(100):
            step.advance()
    assert shown.getvalue() == ""


def test_brackets_in_labels_and_notes_are_text(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    with track("[/summarization]", total=1) as step:
        step.advance(note="[red]1[/blue]")
    assert "[/summarization]" in shown.getvalue() and "[red]1[/blue]" in shown.getvalue()
    terminal = on_terminal(monkeypatch)
    with track("[/summarization]", total=1) as step:
        step.advance(note="[red]1[/blue]")
    assert "[/summarization]" in terminal.getvalue() and "[red]1[/blue]" in terminal.getvalue()


def test_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with track("training", total=4) as step:
        step.advance(4, note="loss 0.5")
    assert "training" in terminal.getvalue() and "4/4" in terminal.getvalue() and "loss 0.5" in terminal.getvalue()


def test_steps_may_nest_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    with track("outer", total=1) as outer:
        with track("inner", total=1) as inner:
            inner.advance()
        outer.advance()
    assert "outer" in terminal.getvalue() and "inner" in terminal.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_to_do_and_more_than_promised_are_no_errors(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    if terminal:
        on_terminal(monkeypatch)
    with track("empty", total=0):
        pass
    with track("more", total=1) as step:
        step.advance(3)


def test_errors_in_the_block_come_through(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch)
    with pytest.raises(KeyError, match="inside"), track("failing", total=2):
        raise KeyError("inside")


def test_progress_is_written_to_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    progress.console.print("to errors")
    captured = capsys.readouterr()
    assert captured.err == "to errors\n" and captured.out == ""
