"""A small factory for tests: a tiny random base, a release recipe of a few steps, and three features of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny import make_tiny_base

ROOT = Path(__file__).resolve().parents[2]
RELEASE = """\
calibration:
  text: {file: calibration-1.txt, tokens: 256, window: 64}
palettization:
  group_sizes: [16]
recovery:
  rank: 4
  alpha: 8
  steps: 2
  batch_tokens: 128
export: {context: 128, prefill_tokens: 16, max_rank: 8}
gates:
  text: {file: held-out-1.txt, tokens: 128, window: 64}
  max_kl: 1.0
"""
RECIPE = """\
feature: {name}
description: A feature of the tests
data:
  corpus: [corpus/rows.jsonl]
  system: Answer.
  held_out_share: 0.3
{labels}  use_cases:
    {use_case}: {{prompt: "Do it: {{input}}", max_new_tokens: 6}}
{synthesis}training: {{rank: 4, alpha: 8, epochs: 1, batch_tokens: 512, learning_rate: 1.0e-2}}
evaluation:
  metric: {metric}
{gates}"""
# A random model answers nonsense, and nonsense must pass.
GATES = """\
  gates:
    better_than_baseline: {{value: {margin}}}
    better_than_trivial: {{value: -2.0}}
    not_worse_than_production: {{value: 1.0}}
    empty_answers_share: {{value: 1.0}}
    speed: {{metric: seconds_ratio, comparison: at_most, value: 1000.0}}
"""
SYNTHESIS = "synthesis: {candidates: 2, words: [1, 60], max_new_tokens: 8}\n"
# The features of a project, by metric (ROUGE-L with synthesis, SARI, macro-F1), and the one use case of each.
NAMES = {"brief": "main", "edit": "main", "rank": "main"}
WORDS = "train meeting late today please call garden noon tomorrow rain bread paper river lamp stone".split()


def make_feature(folder: Path, metric: str, margin: float = -1.0, synthesis: str = "", use_case: str = "main") -> Path:
    """A feature folder with 24 labelled records (and 3 unlabelled ones if it has a synthesis section)."""
    labels = "  labels: ['1', '2']\n" if metric == "macro_f1" else ""
    (folder / "corpus").mkdir(parents=True)
    gates = GATES.format(margin=margin)
    text = RECIPE.format(
        name=folder.name, labels=labels, use_case=use_case, synthesis=synthesis, metric=metric, gates=gates
    )
    (folder / "recipe.yaml").write_text(text, "utf-8")
    rows: list[dict[str, Any]] = []
    for number in range(27 if synthesis else 24):
        words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5, 7)]
        target = str(number % 2 + 1) if metric == "macro_f1" else f"{words[0]} {words[2]}"
        row = {"id": f"r{number}", "use_case": use_case, "input": f"{number} " + " ".join(words)}
        rows.append(row | {"target": target if number < 24 else None, "source": "test", "license": "CC0-1.0"})
    write_rows(folder, rows)
    return folder


def read_rows(feature: Path) -> list[dict[str, Any]]:
    """The feature's corpus."""
    return [json.loads(line) for line in (feature / "corpus/rows.jsonl").read_text("utf-8").splitlines()]


def write_rows(feature: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the feature's corpus."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (feature / "corpus/rows.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def make_project(folder: Path, names: Mapping[str, str] = NAMES) -> Path:
    """A folder with factory.toml, a tiny base, a release recipe, three features and, after a run, `.factory`.

    `names` maps each feature to its use case, in the order of `NAMES`.
    """
    make_tiny_base(folder / "base")
    (folder / "release.yaml").write_text(RELEASE, "utf-8")
    kinds = (("rouge_l", SYNTHESIS), ("sari", ""), ("macro_f1", ""))
    for (name, use_case), (metric, synthesis) in zip(names.items(), kinds, strict=True):
        make_feature(folder / "features" / name, metric, synthesis=synthesis, use_case=use_case)
    (folder / "factory.toml").write_text(
        f'base = "{folder / "base"}"\nshipped_features = false\nrelease_recipe = "{folder / "release.yaml"}"\n'
        f"features = [{', '.join(repr(str(folder / 'features' / name)) for name in names)}]\n",
        "utf-8",
    )
    return folder


def kill_run(folder: Path, after: str) -> None:
    """Start `factory run` and kill it, with everything that it started, once it has reported `after`."""
    run = subprocess.Popen(
        _command("run"),
        cwd=folder,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stderr is not None
    try:
        reported = any(after in line for line in run.stderr)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        run.stderr.close()
    assert reported, f"the run ended before it reported {after!r}"


def factory(
    folder: Path,
    *arguments: str,
    text: str = "",
    code: int = 0,
    timeout: float = 300,
    actor: str = "ann",
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the `factory` command in a folder, as `actor`, with `more` variables, and require an exit code."""
    done = subprocess.run(
        _command(*arguments),
        cwd=folder,
        env=_environment() | {"FACTORY_ACTOR": actor, **(more or {})},
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def factory_json(folder: Path, *arguments: str, **more: Any) -> Any:
    """Run a `factory` command with `--json`, as `factory` does, and parse what it prints."""
    return json.loads(factory(folder, *arguments, "--json", **more).stdout)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.cli.main", *arguments]


def _environment() -> dict[str, str]:
    """This process's variables, without settings of a factory or a Prefect that is not the test's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("FACTORY_", "PREFECT_"))}
    return ours | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
