"""The report page: whole in itself, safe against what records hold, equal for equal evaluations."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.code import code_digest
from adapters.evaluation.evaluate import write_evaluation
from adapters.evaluation.gates import GateReport, at_least, at_most
from adapters.evaluation.release_report import write_release_report
from adapters.evaluation.report import Background, write_report
from adapters.records import Record, write_records
from tests.adapters.evaluation_cases import recipe, write_texts

HOSTILE = "<script>alert('x')</script> {{ 7 * 7 }} </p><img src=http://example.com/x.png>"


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    plan = recipe("rouge_l")
    held_out = [
        Record(
            id=f"{HOSTILE if number == 0 else 'r'}{number}",
            use_case=("one", "two")[number % 2],
            input=f"{HOSTILE} {number}",
            target=f"summary of {number} {HOSTILE}",
            source="test",
            license="Apache-2.0",
        )
        for number in range(24)
    ]
    write_records(tmp_path / "held_out.jsonl", held_out)
    systems = {}
    for name, text in (("baseline", "summary"), ("full_precision", ""), ("candidate", f"summary of {HOSTILE}")):
        systems[name] = write_texts(tmp_path / name, held_out, [text] * len(held_out))
    output = tmp_path / "evaluation"
    output.mkdir()
    write_evaluation(plan, tmp_path / "held_out.jsonl", systems, {"adapter_mb": 9.8}, output)
    return output


def background(folder: Path) -> Background:
    steps = [{"step": step, "loss": 3 / (step + 1), "tokens": 1000, "seconds": 2.0} for step in range(30)]
    (folder / "training.json").write_text(json.dumps(steps))
    report = {
        "rows": 120,
        "quarantined": 2,
        "reasons": {HOSTILE: 2},
        "use_cases": {"one": {"training": 40, "held_out": 12}, "two": {"training": 44, "held_out": 12}},
        "problems": [],
    }
    (folder / "data.json").write_text(json.dumps(report))
    return Background(HOSTILE, folder / "training.json", folder / "data.json", None, {"data": "ab" * 32})


def test_hostile_texts_are_shown_and_not_run(evaluation: Path, tmp_path: Path) -> None:
    write_report(evaluation, background(tmp_path))
    page = (evaluation / "report.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(" in page
    assert "{{ 7 * 7 }}" in page and "http://example.com/x.png>" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_the_page_holds_everything_and_loads_nothing(evaluation: Path, tmp_path: Path) -> None:
    write_report(evaluation, background(tmp_path))
    page = (evaluation / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) == 4 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert re.search(r"two</th><td class=\"number\">44</td><td class=\"number\">12</td>", page)
    for expected in ("Passes", "better than baseline", "tokens a second", "30,000", "ab" * 32, "120"):
        assert expected in page
    for name in ("scores", "scores-dark", "training", "training-dark"):
        assert (evaluation / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert page.count('class="card sample"') == 20 + 10


def test_equal_evaluations_give_equal_pages_and_pictures(evaluation: Path, tmp_path: Path) -> None:
    files = ("report.html", "figures/scores.png", "figures/training-dark.png")
    write_report(evaluation, background(tmp_path))
    first = [(evaluation / name).read_bytes() for name in files]
    write_report(evaluation, background(tmp_path))
    assert [(evaluation / name).read_bytes() for name in files] == first


def test_losses_on_held_out_examples_are_in_the_curve(evaluation: Path, tmp_path: Path) -> None:
    told = background(tmp_path)
    write_report(evaluation, told)
    without = (evaluation / "figures/training.png").read_bytes()
    steps = json.loads((tmp_path / "training.json").read_text())
    steps[9] |= {"held_out_loss": 0.4, "megabytes": 1234.5}
    (tmp_path / "training.json").write_text(json.dumps(steps))
    write_report(evaluation, told)
    assert (evaluation / "figures/training.png").read_bytes() != without
    page = (evaluation / "report.html").read_text("utf-8")
    assert "1,234 MB" in page and "&lt; 0.001" in page


def test_what_is_unknown_is_left_out(evaluation: Path) -> None:
    write_report(evaluation, Background())
    page = (evaluation / "report.html").read_text("utf-8")
    assert "<h2>Training</h2>" not in page and "<h2>Data and synthesis</h2>" not in page
    assert not (evaluation / "figures/training.png").exists()


def test_the_evaluators_key_does_not_follow_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    import adapters.code as code

    read: list[str] = []
    source = code._source
    monkeypatch.setattr(code, "_source", lambda module: read.append(module) or source(module))
    for cached in (code_digest, code._read):
        cached.cache_clear()
    code_digest("adapters.evaluation.evaluate")
    assert "adapters.evaluation.metrics_edit" in read and "adapters.evaluation.statistics" in read
    assert "adapters.evaluation.report" not in read and "adapters.evaluation.figures" not in read


def test_importing_the_evaluator_and_the_report_is_light() -> None:
    heavy = "{'matplotlib', 'sklearn', 'rouge_score', 'jinja2', 'torch', 'nltk'}"
    program = f"import sys, adapters.evaluation.evaluate, adapters.evaluation.report; print({heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_a_base_release_has_its_page(tmp_path: Path) -> None:
    gates = [at_most("kl", 0.31, 0.25), at_least("psnr_db", 114.2, 50)]
    report = GateReport("base", gates, {"psnr_db": 114.2, "kl": 0.31, "bpw_linear": 4.25, "bpw_all": 4.98})
    release = {"base": HOSTILE, "tensors": {"4-bit": 210, "int8": 1}, "parameters": 134515008, "figures": {}}
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps([{"step": n, "loss": 1 / (n + 1), "tokens": 10, "seconds": 1.0} for n in range(12)]))
    write_release_report(report, release, tmp_path, steps)
    page = (tmp_path / "release.html").read_text("utf-8")
    assert "Fails 1 of 2 gates: KL" in page and "<script" not in page
    assert page.index("bits per weight, linear") < page.index(">KL<", page.index("Figures"))
    assert page.count("data:image/png;base64,") == 2 and "134,515,008" in page
    write_release_report(report, release, tmp_path)
    assert "Accuracy recovery" not in (tmp_path / "release.html").read_text("utf-8")
