"""The store: built once, whole or not at all, and never served damaged. Kills and full disks are real ones."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import FactoryError
from infra.store import Stage, Store

KEY_INPUTS = {"code": "c0de", "records": ["a", 1]}

# A process that builds one stage with the body it is given; it says "ready" when it is about to ask for it.
BUILDER = """
import json, resource, sys, time
from pathlib import Path
from infra.errors import FactoryError
from infra.store import Stage, Store

def build(output, scratch):
    with (Path(sys.argv[1]) / "builds").open("a") as log:
        log.write("x")
{body}

print("ready", flush=True)
try:
    built = Store(Path(sys.argv[1]) / "store").build(Stage("words", {inputs!r}, build))
    print(json.dumps({{"digest": built.digest, "reused": built.reused}}))
except FactoryError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start(folder: Path, body: str) -> subprocess.Popen[str]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    code = BUILDER.format(body=lines, inputs=KEY_INPUTS)
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )


def writes(text: str, log: list[str] | None = None) -> Callable[[Path, Path], None]:
    def build(output: Path, scratch: Path) -> None:
        (output / "words.txt").write_text(text)
        if log is not None:
            log.append(text)

    return build


def test_same_key_is_built_once(tmp_path: Path) -> None:
    store, log = Store(tmp_path), list[str]()
    stage = Stage("words", KEY_INPUTS, writes("hello", log))
    first = store.build(stage)
    again = Store(tmp_path).build(stage)
    assert log == ["hello"]
    assert (first.reused, again.reused, again.seconds) == (False, True, 0.0)
    assert (first.path, first.key, first.digest) == (again.path, again.key, again.digest)
    assert again.path.joinpath("words.txt").read_text() == "hello"
    assert store.seconds("words", stage.key) is not None


def test_key_is_name_and_inputs_and_nothing_else() -> None:
    stage = Stage("words", {"a": 1, "b": "x"}, writes("1"))
    assert stage.key == Stage("words", {"b": "x", "a": 1}, writes("2")).key
    assert stage.key != Stage("others", {"a": 1, "b": "x"}, writes("1")).key
    assert stage.key != Stage("words", {"a": 2, "b": "x"}, writes("1")).key


def test_other_keys_stand_side_by_side(tmp_path: Path) -> None:
    store = Store(tmp_path)
    built = [store.build(Stage("words", {"n": n}, writes(str(n)))) for n in range(3)]
    assert [entry.path.joinpath("words.txt").read_text() for entry in built] == ["0", "1", "2"]


def test_manifest_tells_what_was_built_from_what(tmp_path: Path) -> None:
    built = Store(tmp_path).build(Stage("words", KEY_INPUTS, writes("hello")))
    manifest = json.loads((built.path.parent / "stage.json").read_text())
    assert (manifest["inputs"], manifest["key"], manifest["digest"]) == (KEY_INPUTS, built.key, built.digest)


def test_failed_build_leaves_nothing_but_its_scratch(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(output: Path, scratch: Path) -> None:
        (output / "half").write_text("half")
        (scratch / "done-1").write_text("kept")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        store.build(Stage("words", KEY_INPUTS, fails))
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in files] == ["done-1"]

    def goes_on(output: Path, scratch: Path) -> None:
        (output / "words.txt").write_text((scratch / "done-1").read_text())

    built = store.build(Stage("words", KEY_INPUTS, goes_on))
    assert (built.path / "words.txt").read_text() == "kept"
    assert not any((tmp_path / "scratch").iterdir())


def test_killed_build_leaves_nothing_and_its_scratch_stays(tmp_path: Path) -> None:
    body = "(output / 'half').write_text('half')\n(scratch / 'done-1').write_text('kept')\n"
    process = start(tmp_path, body + "print('building', flush=True)\nsys.stdin.read()")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    store = Store(tmp_path / "store")
    found: list[list[str]] = []

    def goes_on(output: Path, scratch: Path) -> None:
        found.append([*map(str, output.iterdir()), (scratch / "done-1").read_text()])
        (output / "words.txt").write_text("whole")

    stage = Stage("words", KEY_INPUTS, goes_on)
    assert store.find(stage.name, stage.key) is None
    assert store.seconds(stage.name, stage.key) is None
    built = store.build(stage)
    assert found == [["kept"]], "the next build starts with an empty output and the scratch of the killed one"
    assert [path.name for path in built.path.iterdir()] == ["words.txt"]
    assert not list((tmp_path / "store").rglob("half")), "what the killed run had begun is gone"


def truncate_content(entry: Path) -> None:
    (entry / "output" / "words.txt").write_text("hel")


def add_file(entry: Path) -> None:
    (entry / "output" / "more.txt").write_text("more")


def lose_output(entry: Path) -> None:
    (entry / "output" / "words.txt").unlink()
    (entry / "output").rmdir()


def truncate_manifest(entry: Path) -> None:
    (entry / "stage.json").write_text('{"stage":')


def lose_manifest(entry: Path) -> None:
    (entry / "stage.json").unlink()


def link_content(entry: Path) -> None:
    (entry / "output" / "words.txt").rename(entry / "words.txt")
    (entry / "output" / "words.txt").symlink_to(entry / "words.txt")


@pytest.mark.parametrize(
    "damage", [truncate_content, add_file, lose_output, truncate_manifest, lose_manifest, link_content]
)
def test_damaged_entry_is_moved_aside_and_built_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store, log = Store(tmp_path), list[str]()
    stage = Stage("words", KEY_INPUTS, writes("hello", log))
    first = store.build(stage)
    damage(first.path.parent)
    again = store.build(stage)
    assert not again.reused and log == ["hello", "hello"]
    assert again.digest == first.digest and (again.path / "words.txt").read_text() == "hello"
    aside = [path.name for path in first.path.parents[1].iterdir() if ".damaged-" in path.name]
    assert len(aside) == 1, "the damaged entry is kept for whoever wants to know what happened"


def test_empty_output_that_vanished_is_noticed(tmp_path: Path) -> None:
    stage = Stage("nothing", {}, lambda output, scratch: None)
    first = Store(tmp_path).build(stage)
    first.path.rmdir()
    assert Store(tmp_path).find(stage.name, stage.key) is None


def test_two_processes_that_want_the_same_key_both_get_it(tmp_path: Path) -> None:
    # Both work in the scratch folder of the key: if they ran at once, the first to end would take it from the other.
    body = "import uuid\n(scratch / 'part').write_text('part')\nprint('building', flush=True)\n"
    body += "sys.stdin.readline()\n(output / 'words.txt').write_text((scratch / 'part').read_text() + uuid.uuid4().hex)"
    first = start(tmp_path, body)
    assert first.stdout is not None and first.stdout.readline() == "ready\n"
    assert first.stdout.readline() == "building\n"
    second = start(tmp_path, body)
    assert second.stdout is not None and second.stdout.readline() == "ready\n"
    begun, _, _ = select.select([second.stdout], [], [], 0.5)
    assert not begun, "the second waits while the first builds"
    out_1, err_1 = first.communicate("go\n", timeout=60)
    out_2, err_2 = second.communicate("go\n", timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), err_1 + err_2
    one, two = json.loads(out_1.splitlines()[-1]), json.loads(out_2.splitlines()[-1])
    assert one["digest"] == two["digest"]
    assert (one["reused"], two["reused"]) == (False, True)
    assert (tmp_path / "builds").read_text() == "x", "the key was built once"


@pytest.mark.parametrize(
    "fill",
    [
        "(output / 'big').write_bytes(bytes(100_000))",
        "(scratch / 'big').write_bytes(bytes(100_000))",
        "shutil.copytree(scratch / 'source', output / 'copy')",
    ],
)
def test_full_disk_is_told_in_one_line_and_leaves_nothing_half_written(tmp_path: Path, fill: str) -> None:
    body = "import shutil\n(scratch / 'done-1').write_text('kept')\n"
    body += "(scratch / 'source').mkdir()\n(scratch / 'source' / 'big').write_bytes(bytes(100_000))\n"
    process = start(tmp_path, f"{body}resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n{fill}")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    ready, message = out.splitlines()
    assert (ready, "words" in message, "make room" in message) == ("ready", True, True)
    store = tmp_path / "store"
    assert not (store / "words").exists() and not list((store / "making").glob("*/*"))
    assert [path.read_text() for path in store.rglob("done-1")] == ["kept"]
    built = Store(store).build(Stage("words", KEY_INPUTS, writes("whole")))
    assert (built.path / "words.txt").read_text() == "whole"


def test_full_disk_while_the_manifest_is_written(tmp_path: Path) -> None:
    process = start(tmp_path, "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "make room" in out, err
    assert Store(tmp_path / "store").find("words", Stage("words", KEY_INPUTS, writes("")).key) is None


def test_other_io_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    def fails(output: Path, scratch: Path) -> None:
        (output / "no" / "such").read_text()

    with pytest.raises(FileNotFoundError):
        Store(tmp_path).build(Stage("words", {}, fails))


def test_user_errors_pass_through(tmp_path: Path) -> None:
    def fails(output: Path, scratch: Path) -> None:
        raise FactoryError("say what to do")

    with pytest.raises(FactoryError, match="say what to do"):
        Store(tmp_path).build(Stage("words", {}, fails))


def test_entries_are_listed_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept, gone = (store.build(Stage("words", {"n": n}, writes(str(n)))) for n in range(2))
    (tmp_path / "words" / "0.damaged-1").mkdir()
    assert {entry.key for entry in store.entries()} == {kept.key, gone.key}
    (entry,) = [entry for entry in store.entries() if entry.key == gone.key]
    assert (entry.stage, entry.inputs, entry.megabytes > 0) == ("words", {"n": 1}, True)
    store.remove(entry)
    assert store.find("words", gone.key) is None
    assert [entry.key for entry in store.entries()] == [kept.key]
    assert store.find("words", kept.key) is not None
