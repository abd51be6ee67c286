"""The release recipe and the chain of stages, whole, on a tiny model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.evaluation.gates import GateReport
from adapters.inference.models import load_tokenizer
from adapters.palettization.assemble import AIMODEL, GATES, RECOVERY, read_manifest
from adapters.palettization.recipe import RELEASE_YAML, ReleaseRecipe, load_release_recipe
from adapters.palettization.release import load_release
from adapters.palettization.stages import release_lineage, release_stages
from adapters.training.lora import load_adapter
from infra.canonical import digest, digest_folder, file_digests
from infra.errors import FactoryError
from infra.store import Store
from tests.tiny import make_tiny_base

TEXT = {"file": "calibration-1.txt", "tokens": 256, "window": 32}
TINY: dict[str, Any] = {
    "calibration": {"text": TEXT},
    "sensitivities": {"tokens": 256},
    "palettization": {"group_sizes": [8]},
    "recovery": {"rank": 4, "steps": 2, "batch_tokens": 128},
    "export": {"context": 64, "prefill_tokens": 8, "max_rank": 8},
    "gates": {"text": {"file": "held-out-1.txt", "tokens": 128, "window": 32}, "max_kl": 1.0},
}
NAMES = ["calibration", "sensitivities", "palettized", "recovery", "aimodel", "evidence", "release"]


def recipe_with(**changes: dict[str, Any]) -> ReleaseRecipe:
    return ReleaseRecipe.model_validate({name: TINY[name] | changes.get(name, {}) for name in TINY})


def changed_stages(one: ReleaseRecipe, other: ReleaseRecipe, base: str = "0" * 64) -> list[str]:
    before = {stage.name: stage.key for stage in release_stages(Path(), "0" * 64, one, Store(Path()))}
    return [new.name for new in release_stages(Path(), base, other, Store(Path())) if before.get(new.name) != new.key]


def test_a_release_is_built_verified_and_whole(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    base_digest = digest_folder(base)
    recipe = recipe_with()
    store = Store(tmp_path / "store")
    stages = release_stages(base, base_digest, recipe, store)
    assert [stage.name for stage in stages] == NAMES
    folder = [store.build(stage) for stage in stages][-1].path

    manifest = read_manifest(folder)
    assert manifest.key == digest(release_lineage(base_digest, recipe))
    assert manifest.base == base_digest
    assert ReleaseRecipe.model_validate(manifest.recipe) == recipe
    assert manifest.files == {name: value for name, value in file_digests(folder).items() if name != "release.json"}
    assert (folder / AIMODEL / "main.mlirb").is_file()
    report = GateReport.from_json((folder / GATES).read_text())
    assert report.passed and manifest.passed and manifest.gates == report.digest
    assert {gate.name for gate in report.gates} == {"asset_psnr_db", "asset_argmax_agreement", "recovered_kl"}
    assert manifest.figures["psnr_db"] > 80 and manifest.figures["argmax_agreement"] == 1
    assert 4 < manifest.figures["bpw_linear"] < manifest.figures["bpw_all"] < manifest.figures["bpw_all_with_recovery"]
    model = load_adapter(load_release(folder, torch.float32), folder / RECOVERY)
    assert torch.isfinite(model(load_tokenizer(folder)("hello", return_tensors="pt").input_ids).logits).all()

    assert all(store.build(stage).reused for stage in stages)


def test_a_failed_gate_is_reported_and_the_release_is_marked(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    store = Store(tmp_path / "store")
    strict = recipe_with(gates={"max_kl": 1e-12})
    folder = [store.build(stage) for stage in release_stages(base, "0" * 64, strict, store)][-1].path
    report = GateReport.from_json((folder / GATES).read_text())
    assert [gate.name for gate in report.failed] == ["recovered_kl"]
    assert not read_manifest(folder).passed


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({"gates": {"max_kl": 0.5}}, ["evidence", "release"]),
        ({"export": {"context": 128}}, ["aimodel", "evidence", "release"]),
        ({"recovery": {"seed": 1}}, ["recovery", "evidence", "release"]),
        ({"palettization": {"group_sizes": [4]}}, NAMES[2:]),
        ({"sensitivities": {"seed": 1}}, NAMES[1:]),
        ({"calibration": {"seed": 1}}, NAMES),
    ],
)
def test_a_change_makes_stale_what_depends_on_it(changes: dict[str, Any], stale: list[str]) -> None:
    assert changed_stages(recipe_with(), recipe_with(**changes)) == stale


def test_another_base_makes_everything_stale_and_other_gates_no_other_release() -> None:
    assert changed_stages(recipe_with(), recipe_with(), base="1" * 64) == NAMES
    lineage = release_lineage("0" * 64, recipe_with())
    assert lineage == release_lineage("0" * 64, recipe_with(gates={"max_kl": 0.5}))
    assert lineage.keys() == {"base_model", "palettized", "recovery", "aimodel"}


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_the_shipped_recipe_is_valid(profile: Any) -> None:
    recipe = load_release_recipe(profile)
    assert recipe.palettization.bits == ([4] if profile == "quick" else [2, 3, 4, 6])
    assert recipe.recovery.rank <= recipe.export.max_rank
    # What a release is judged on was not trained on.
    assert recipe.gates.text.file != recipe.calibration.text.file


def test_a_target_opens_the_choice_of_formats_and_changes_the_release() -> None:
    recipe = recipe_with().with_target(3.7)
    assert (recipe.palettization.bits, recipe.palettization.bits_per_weight) == ([2, 3, 4, 6], 3.7)
    assert changed_stages(recipe_with(), recipe) == ["options", *NAMES[2:]]
    assert changed_stages(recipe, recipe.with_target(3.5)) == NAMES[2:]
    own = recipe_with(palettization={"bits": [2, 4], "group_sizes": [16], "bits_per_weight": 3.0}).with_target(3.5)
    assert (own.palettization.bits, own.palettization.bits_per_weight) == ([2, 4], 3.5)
    with pytest.raises(FactoryError, match=r"bits_per_weight.*\n.*less than or equal to 9"):
        recipe_with().with_target(12)


def test_all_errors_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "release.yaml"
    text = RELEASE_YAML.read_text().replace("bits: [4]", "bits: [5]").replace("held-out-1.txt", "../secret.txt")
    path.write_text(text)
    with pytest.raises(FactoryError, match="2 error") as caught:
        load_release_recipe("quick", path)
    assert "palettization.bits" in str(caught.value) and "gates.text.file" in str(caught.value)


def test_keys_are_computed_without_torch() -> None:
    code = (
        "import sys; from adapters.palettization.recipe import load_release_recipe;"
        "from adapters.palettization.stages import release_lineage;"
        "release_lineage('0' * 64, load_release_recipe());"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
