"""The documents say what is so: links, commands, targets, keys, states, columns and dependencies, checked or run."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adapters.recipe import FIGURES, MEASURED, SUITE_FILES, Metric, Recipe, Section, standard_gates
from flows.cli.main import app
from infra.settings import Settings
from registry.decisions import Row
from registry.plan import State
from tests.flows.line import GATES, WORDS, factory, make_project
from tests.tiny import make_tiny_base

ROOT = Path(__file__).parents[1]
# README last: it ends with another base release, which takes everything out of production.
DOCUMENTS = (
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/deploy.md",
    "docs/evaluation.md",
    "docs/features.md",
    "docs/package-format.md",
    "docs/production.md",
    "docs/scale.md",
    "docs/security.md",
    "docs/triggers.md",
    "docs/words.md",
    "README.md",
    "docs/base.md",  # after the others: another base leaves nothing to roll back to
)
FEATURES = {"summarization": "email", "writing": "proofread", "notifications": "priority"}
OTHER_BASE = "other-base"
SUBSTITUTES = {"hf://org/name": OTHER_BASE}
# What a document tells to do by hand after a command: here, gates that a random model passes.
EDITS = {
    "factory feature new replies": (
        "features/replies/recipe.yaml",
        GATES.format(margin=-1.0),
    )
}
REQUIRED = "required"


def read(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def sh_lines(document: str) -> list[str]:
    """The lines of a document's ```sh blocks, without comments and empty lines."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", read(document), flags=re.MULTILINE | re.DOTALL)
    lines = (line for block in blocks for line in block.splitlines())
    return [line for line in lines if shlex.split(line, comments=True)]


def section(document: str, heading: str) -> str:
    """A document's text below a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", read(document), flags=re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows whose first cell is one name in backticks."""
    lines = re.findall(r"^\| `[^`|]*` \|.*\|$", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(text: str) -> list[str]:
    """The first cells of `rows`, without backticks."""
    return [cells[0].strip("`") for cells in rows(text)]


def defaults(text: str) -> dict[str, object]:
    """First and second column of a table of settings: names and default values."""
    cells = ((row[0].strip("`"), row[1].strip("`")) for row in rows(text))
    return {name: REQUIRED if default == REQUIRED else yaml.safe_load(default) for name, default in cells}


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    here = ROOT / document
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", here.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_is_listed() -> None:
    documents = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")} | {"README.md"}
    assert documents == set(DOCUMENTS)
    linked = set(re.findall(r"\]\((docs/[^)#]+)\)", read("README.md")))
    assert linked == documents - {"README.md"}


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.MULTILINE))
    named: set[str] = set()
    for document in DOCUMENTS:
        named |= set(re.findall(r"`make ([a-z-]+)`", read(document)))
        named |= {line.split()[1] for line in sh_lines(document) if line.startswith("make ")}
    assert {"run", "test"} <= named <= targets


def commands(command: Any, path: str = "factory") -> Iterator[str]:
    """Every command of the command line, as it is written."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path
    else:
        for name, inner in below.items():
            yield from commands(inner, f"{path} {name}")


def test_every_command_is_in_the_documents() -> None:
    text = "\n".join(read(document) for document in DOCUMENTS)
    known = list(commands(typer.main.get_command(app)))
    assert len(known) > 15
    assert [command for command in known if not re.search(rf"{command}\b", text)] == []


def recipe_keys(model: type[Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys of a recipe section and their defaults; sections are followed, an optional one is a key too."""
    for name, field in model.model_fields.items():
        found = [kind for kind in (field.annotation, *get_args(field.annotation)) if is_section(kind)]
        if not found or field.default is None:
            yield prefix + name, default_of(field)
        for inner in found:
            of_many = "NAME." if field.annotation != inner and field.default is not None else ""
            yield from recipe_keys(inner, f"{prefix}{name}.{of_many}")


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def default_of(field: FieldInfo) -> object:
    """A field's default as YAML has it."""
    default = field.get_default(call_default_factory=True, validated_data={})
    return REQUIRED if field.is_required() else json.loads(json.dumps(default, default=str))


def test_the_keys_of_a_recipe_are_as_documented() -> None:
    documented = defaults(section("docs/features.md", "Every key of a recipe"))
    assert documented == dict(recipe_keys(Recipe))
    assert list(documented) == [key for key, _ in recipe_keys(Recipe)]


def test_gates_figures_and_suites_are_as_documented() -> None:
    text = section("docs/evaluation.md", "Gates")
    gates = {name: gate for metric in get_args(Metric) for name, gate in standard_gates(metric).items()}
    assert {name for name in names(text) if name in gates} == set(gates)
    named = set(re.findall(r"`([a-z_0-9]+)`", text))
    assert {figure for figures in FIGURES.values() for figure in figures} | set(MEASURED) <= named
    suites = {row[0].strip("`"): row[1] for row in rows(section("docs/evaluation.md", "Suites"))}
    assert suites.keys() == SUITE_FILES.keys()
    assert all(f"`{file}`" in suites[name] for name, files in SUITE_FILES.items() for file in files)


def test_settings_are_as_documented() -> None:
    model: type[BaseModel] = Settings
    expected = {name: default_of(field) for name, field in model.model_fields.items()}
    assert defaults(section("docs/production.md", "Where everything is kept")) == expected


def test_states_of_the_plan_are_as_documented() -> None:
    assert set(names(section("docs/production.md", "The plan"))) == set(get_args(State))


def test_columns_of_the_ledger_are_as_documented() -> None:
    assert set(names(section("docs/production.md", "The ledger"))) == {*Row.model_fields, "lineage_key"}


def test_every_direct_dependency_is_explained() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    explained = rows(section("docs/architecture.md", "Why each direct dependency is there"))
    declared = project["dependencies"] + [name for names in project["optional-dependencies"].values() for name in names]
    assert sorted(cells[0].strip("`") for cells in explained) == sorted(declared)
    assert all(reason and licence for _, reason, licence in explained)


def test_architecture_can_be_read_at_one_sitting() -> None:
    # The tables of dependencies are for looking things up.
    tables = section("docs/architecture.md", "Why each direct dependency is there")
    assert len(read("docs/architecture.md").splitlines()) - len(tables.splitlines()) <= 200
    assert len(read("README.md").splitlines()) <= 70


def test_sh_blocks_hold_known_programs() -> None:
    programs = {line.split()[0] for document in DOCUMENTS for line in sh_lines(document)}
    assert programs <= {"factory", "make", ".venv/bin/mlflow"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its first run, with the files that the documents name."""
    folder = make_project(tmp_path_factory.mktemp("documents"), FEATURES)
    make_tiny_base(folder / OTHER_BASE, seed=1)
    for name in ("mail.txt", "message.txt", "note.txt"):
        (folder / name).write_text("please call me about the garden\n", "utf-8")
    for name, letter, count in (("tickets.csv", "t", 24), ("more.csv", "m", 6)):
        lines = [f"{letter}{i},{letter} {i} {WORDS[i % len(WORDS)]} today,{WORDS[i % 7]} noon" for i in range(count)]
        (folder / name).write_text("\n".join(["id,message,reply", *lines]) + "\n", "utf-8")
    added = [{"input": f"tomorow {word} is late", "target": f"tomorrow {word} is late"} for word in WORDS[:6]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in added), "utf-8")
    asked = [{"id": f"q{i}", "prompt": f"How do I stop the {word}?", "label": "safe"} for i, word in enumerate(WORDS)]
    for name in ("adversarial.jsonl", "overrefusal.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    (folder / "held-out.txt").write_text("\n".join([" ".join(WORDS)] * 40), "utf-8")
    verdict = {"item": "r1", "judge": "ana", "one": "candidate", "other": "baseline", "winner": "tie"}
    (folder / "verdicts.jsonl").write_text(json.dumps(verdict) + "\n", "utf-8")
    factory(folder, "run")
    return folder


@pytest.mark.servers
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_do_what_they_say(document: str, project: Path) -> None:
    """Every `factory` line of a document, in order, in the one project; each exits 0."""
    for line in sh_lines(document):
        program, *arguments = shlex.split(line, comments=True)
        if program != "factory":
            continue
        if arguments[0] == "bench":  # minutes on the real model; here only: it is there
            assert (ROOT / "tests" / "benchmarks" / f"bench_{arguments[1].replace('-', '_')}.py").is_file(), line
            continue
        if arguments[0] in ("up", "status", "down"):  # tests/flows/test_stack.py runs them, for minutes
            continue
        text = ""
        if "<" in arguments:
            at = arguments.index("<")
            text = (project / arguments[at + 1]).read_text("utf-8")
            del arguments[at:]
        factory(project, *(SUBSTITUTES.get(argument, argument) for argument in arguments), text=text)
        file, more = EDITS.get(shlex.join(["factory", *arguments]), (None, ""))
        if file is not None:
            path = project / file
            path.write_text(path.read_text("utf-8") + more, "utf-8")
