"""Verdicts of a model and of people in the gate report: asked for by a recipe, held by gates like any other figure."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.flows.line import factory, factory_json, make_project

pytestmark = [pytest.mark.servers, pytest.mark.slow]
FEATURE = "edit"
SECTION = """\
  verdicts: {model: true, people: people.jsonl, items: 2}
  gates:
    people_prefer_it: {metric: verdicts.people.win_rate, comparison: at_least, value: 0.5}
    model_calls_it_good: {metric: verdicts.model.good, comparison: at_least, value: 1.0}
    model_prefers_it: {metric: verdicts.model.win_rate, comparison: at_least, value: 0.5}
"""


class Kind(BaseHTTPRequestHandler):
    """A judge that finds every pair equal, and every answer good."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = "TIE" if "<answer-B>" in request["messages"][-1]["content"] else "GOOD"
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def judge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_version_waits_for_people_and_passes_with_their_verdicts(tmp_path: Path, judge: str) -> None:
    project = make_project(tmp_path)
    folder = project / "features" / FEATURE
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("  gates:\n", SECTION), "utf-8")
    missing = factory(project, "run", FEATURE, code=2).stderr
    assert "evaluation.verdicts.people" in missing and "no such file" in missing
    (folder / "people.jsonl").write_text("", "utf-8")
    refused = factory_json(project, "run", FEATURE, code=1)["outcomes"][-1]
    assert "judge_url" in refused["error"]

    with (project / "factory.toml").open("a", encoding="utf-8") as settings:
        settings.write(f'judge_url = "{judge}"\n')
    (outcome,) = factory_json(project, "run", FEATURE, code=1)["outcomes"]
    assert (outcome["version"], outcome["state"]) == (1, "rejected")
    gates = {gate["name"]: gate for gate in outcome["gates"]}
    assert [gates[name]["passed"] for name in ("people_prefer_it", "model_calls_it_good", "model_prefers_it")] == [
        False,
        True,
        True,
    ]
    assert gates["model_prefers_it"]["figure"] == 0.5 and gates["people_prefer_it"]["figure"] == 0.0

    verdict = {"item": "r1", "judge": "ana", "one": "candidate", "other": "baseline", "winner": "candidate"}
    (folder / "people.jsonl").write_text(json.dumps(verdict) + "\n", "utf-8")
    (outcome,) = factory_json(project, "run", FEATURE, code=1)["outcomes"]
    assert "names the `version`" in outcome["error"]
    (folder / "people.jsonl").write_text(json.dumps(verdict | {"version": 1}) + "\n", "utf-8")
    (state,) = factory_json(project, "plan", FEATURE)["features"]
    assert state["state"] == "needs evaluation"
    (outcome,) = factory_json(project, "run", FEATURE)["outcomes"]
    assert (outcome["version"], outcome["state"]) == (1, "promoted")
