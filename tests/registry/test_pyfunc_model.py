"""`load_model("models:/adapter-summarization@production")` answers, in a process that knows only MLflow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapters.device.package import build_package
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_tokenizer
from adapters.inference.types import Prompt, Sampling
from adapters.palettization.palettize import write_palettized
from adapters.palettization.recipe import FrozenText, PalettizationSection
from adapters.palettization.release import load_release
from adapters.training.lora import load_adapter, new_adapter, save_adapter
from infra.canonical import digest, digest_folder
from registry.catalog import RunContent
from registry.promotion import promote, promote_release
from tests.registry.conftest import Place
from tests.registry.samples import ACTOR, USE_CASES, make_facts, make_lineage, make_report, release_lineage
from tests.tiny import make_tiny_base, write_fisher

pytestmark = pytest.mark.servers
ASK = """
import json, sys
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/adapter-summarization@production", model_config={"dtype": "float32"})
rows = [{"use_case": "messages", "input": "we will see you"}, {"use_case": "email", "input": "call me"}]
texts = model.predict(["the meeting is late", "a train"])
bad = None
try:
    model.predict([{"use_case": "letters", "input": "x"}])
except Exception as error:
    bad = str(error)
print(json.dumps([texts, model.predict(rows), model.predict(pandas.DataFrame(rows)), bad]))
"""


@pytest.fixture
def release(tmp_path: Path) -> tuple[str, Path]:
    base, scratch, folder = make_tiny_base(tmp_path / "base"), tmp_path / "fisher", tmp_path / "release"
    scratch.mkdir()
    folder.mkdir()
    text = FrozenText(file="calibration-1.txt", tokens=64, window=32)
    write_fisher(base, text, scratch)
    write_palettized(base, scratch, scratch, PalettizationSection(bits=[4], group_sizes=[16]), folder, "cpu")
    (folder / "release.json").write_text("{}")
    return digest(release_lineage("tiny")), folder


def _adapter(release: Path, folder: Path) -> None:
    """An adapter whose B is not zero, so that it matters."""
    model = new_adapter(load_release(release, torch.float32), rank=2, alpha=4, seed=1)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.5, generator=generator)
    save_adapter(model, folder, digest("base"))


def test_the_production_adapter_answers(place: Place, release: tuple[str, Path], tmp_path: Path) -> None:
    key, folder = release
    registry, lineage = place.registry, make_lineage(key)
    run = registry.catalog.log_run("base-release", "tiny", RunContent())
    registry.catalog.register_release(run, folder, release_lineage("tiny"), make_report("base"))
    promote_release(registry, key, actor=ACTOR, reason="test")
    _adapter(folder, tmp_path / "adapter")
    (tmp_path / "package").mkdir()
    build_package(tmp_path / "adapter", tmp_path / "package", make_facts(key, digest_folder(folder), lineage))
    place.register(tmp_path / "package", lineage)
    promote(registry, "summarization", 1, actor=ACTOR, reason="test")

    root = Path(__file__).parents[2]
    asked = subprocess.run([sys.executable, "-c", ASK, place.uri], capture_output=True, text=True, cwd=root)
    assert asked.returncode == 0, asked.stderr
    assert asked.stderr == ""
    texts, rows, frame, bad = json.loads(asked.stdout)

    model = load_adapter(load_release(folder, torch.float32), tmp_path / "package")
    generator = LocalGenerator(model, load_tokenizer(folder))

    def answer(use_case: str, text: str, engine: LocalGenerator = generator) -> str:
        packaged = USE_CASES[use_case]
        prompt = Prompt("You summarize.", packaged.prompt.replace("{input}", text))
        return engine.generate([prompt], Sampling(max_new_tokens=packaged.max_new_tokens))[0][0].text

    assert texts == [answer("email", "the meeting is late"), answer("email", "a train")]
    assert rows == frame == [answer("messages", "we will see you"), answer("email", "call me")]
    assert "'letters': summarization has email, messages" in bad
    bare = LocalGenerator(load_release(folder, torch.float32), load_tokenizer(folder))
    unadapted = [answer("email", "the meeting is late", bare), answer("email", "a train", bare)]
    assert texts != unadapted
