"""Where a training starts, which layers it trains, on how many devices: from the recipe to the registered version."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from registry.catalog import Catalog
from tests.flows.line import factory_json, make_project

pytestmark = [pytest.mark.servers, pytest.mark.slow]
FEATURE = "edit"
# So small a rate leaves the values where they started.
STILL = "learning_rate: 1.0e-12"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with version 1 of one feature; the tests of this module go on from it in their order."""
    folder = make_project(tmp_path_factory.mktemp("recipes"))
    _, outcome = factory_json(folder, "run", FEATURE)["outcomes"]  # the base's comes first
    assert (outcome["version"], outcome["state"]) == (1, "promoted")
    return folder


def trained(project: Path, training: str, version: int) -> dict[str, Tensor]:
    """Run with another section `training`, which makes a version; the tensors of its package."""
    recipe = project / "features" / FEATURE / "recipe.yaml"
    lines = recipe.read_text("utf-8").splitlines()
    changed = [f"training: {{{training}}}" if line.startswith("training:") else line for line in lines]
    recipe.write_text("\n".join(changed) + "\n", "utf-8")
    (outcome,) = factory_json(project, "run", FEATURE)["outcomes"]
    assert outcome["version"] == version
    return package(project, version)


def package(project: Path, version: int) -> dict[str, Tensor]:
    home = project / ".factory"
    catalog = Catalog(f"sqlite:///{home / 'mlflow.db'}", (home / "artifacts").as_uri(), home / "downloads")
    folder = catalog.package_folder(catalog.version(FEATURE, version))
    return dict(load_file(folder / "adapter_model.safetensors"))


def test_from_a_given_version(project: Path) -> None:
    wanted = package(project, 1)
    assert any(tensor.abs().max() > 0 for name, tensor in wanted.items() if "lora_B" in name)
    found = trained(project, f"rank: 4, alpha: 8, batch_tokens: 512, start: 1, {STILL}", 2)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_a_version_that_there_is_not(project: Path) -> None:
    recipe = project / "features" / FEATURE / "recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("start: 1", "start: 9"), "utf-8")
    (outcome,) = factory_json(project, "run", FEATURE, code=1)["outcomes"]
    assert (outcome["state"], outcome["version"]) == ("stopped", None)
    assert outcome["error"].startswith("edit has no version 9; ")
    recipe.write_text(text, "utf-8")


def test_from_scratch_over_some_layers(project: Path) -> None:
    layers = "target_modules: [q_proj, down_proj]"
    found = trained(project, f"rank: 6, alpha: 8, batch_tokens: 512, start: scratch, {layers}, {STILL}", 3)
    assert {name.split(".")[-3] for name in found} == {"q_proj", "down_proj"}
    assert {tensor.shape[0] for name, tensor in found.items() if "lora_A" in name} == {6}
    assert all(tensor.abs().max() == 0 for name, tensor in found.items() if "lora_B" in name)
    answered = factory_json(project, "generate", FEATURE, text="please call today")
    assert answered["version"] == 3


def test_some_layers_of_an_adapter_with_all_are_told(project: Path) -> None:
    recipe = project / "features" / FEATURE / "recipe.yaml"
    text = recipe.read_text("utf-8")
    recipe.write_text(text.replace("start: scratch", "start: recovery"), "utf-8")
    (outcome,) = factory_json(project, "run", FEATURE, code=1)["outcomes"]
    assert outcome["state"] == "stopped" and "the adapter has other layers than this model" in outcome["error"]
    recipe.write_text(text, "utf-8")


def test_on_two_devices(project: Path) -> None:
    """The stage starts two processes; what they train is what one process does, and no other key is stale."""
    base = "rank: 4, alpha: 8, batch_tokens: 512, learning_rate: 1.0e-2, precision: fp32"
    found = trained(project, f"{base}, devices: 2", 4)
    recipe = project / "features" / FEATURE / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace(", devices: 2", ""), "utf-8")
    (plan,) = factory_json(project, "plan", FEATURE)["features"]
    assert plan["state"] == "fresh", "the number of devices is no part of the key"
    (report,) = [
        read
        for path in (project / ".factory/store/training").glob("*/output/training.json")
        if (read := json.loads(path.read_text("utf-8")))["devices"] == 2
    ]
    assert [step["step"] for step in report["steps"]] == list(range(len(report["steps"])))
    alone = trained(project, f"{base}, seed: 0, epochs: 1.0, warmup_share: 0.0500001", 5)
    assert all(torch.allclose(found[name].float(), alone[name].float(), rtol=5e-3, atol=5e-4) for name in alone)
