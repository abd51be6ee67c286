"""The training stage over a tiny palettized release."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters.inference.models import load_tokenizer
from adapters.inference.types import Prompt
from adapters.palettization.release import load_release
from adapters.recipe import TrainingSection
from adapters.training.adapter import split_by_prompt, train_adapter
from adapters.training.batching import Encoded, Example, encode, make_batches
from adapters.training.lora import load_adapter
from adapters.training.losses import completion_cross_entropy
from infra.canonical import digest_folder
from infra.errors import FactoryError
from tests.tiny import make_tiny_release

DIGEST = "cd" * 32
SECTION = TrainingSection(rank=6, alpha=12.0, learning_rate=1e-2, epochs=6, batch_tokens=256, max_tokens=80, seed=2)
EXAMPLES = [Example(Prompt("Repeat.", f"train {i} garden"), "garden train") for i in range(24)]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_release(tmp_path_factory.mktemp("release"))


def test_adapter_and_report(release: Path, tmp_path: Path) -> None:
    examples = [*EXAMPLES, Example(Prompt("Repeat.", "train " * 200), "garden")]
    train_adapter(release, examples, SECTION, DIGEST, tmp_path / "output", tmp_path / "scratch")
    report = json.loads((tmp_path / "output" / "training.json").read_text("utf-8"))
    assert (report["examples"], report["left_out"], report["max_tokens"]) == (24, 1, 80)
    assert report["tokens"] == sum(step["tokens"] for step in report["steps"]) > 0
    assert report["seconds"] > 0 and report["tokens_per_second"] > 0
    assert report["steps"][-1]["loss"] < 0.9 * report["steps"][0]["loss"]
    config = json.loads((tmp_path / "output" / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["revision"]) == (6, 12.0, DIGEST)


def test_it_starts_from_the_recovery_adapter(release: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"learning_rate": 1e-12, "epochs": 0.1})
    train_adapter(release, EXAMPLES, section, DIGEST, tmp_path / "output", tmp_path / "scratch")
    encoded, _ = encode(load_tokenizer(release), EXAMPLES, 80)
    (batch, *_) = make_batches(encoded, 256, 1, seed=2)
    losses = [
        completion_cross_entropy(load_adapter(load_release(release, torch.float32), folder), batch)[0].item()
        for folder in (release / "recovery", tmp_path / "output" / "adapter")
    ]
    without = completion_cross_entropy(load_release(release, torch.float32), batch)[0].item()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] != pytest.approx(without, rel=1e-4)
    saved = load_file(tmp_path / "output" / "adapter" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in saved.items() if "lora_A" in name} == {6}


def test_same_inputs_same_bytes(release: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"epochs": 1.0})
    for name in ("one", "two"):
        train_adapter(release, EXAMPLES, section, DIGEST, tmp_path / name, tmp_path / f"{name}-scratch")
    assert digest_folder(tmp_path / "one" / "adapter") == digest_folder(tmp_path / "two" / "adapter")


def test_no_example_that_fits_is_told(release: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"max_tokens": 3})
    with pytest.raises(FactoryError, match="no example to train on"):
        train_adapter(release, EXAMPLES, section, DIGEST, tmp_path / "output", tmp_path / "scratch")


def test_no_prompt_of_a_held_out_example_is_trained_on() -> None:
    """Records with four references each give four examples of one prompt."""
    encoded = [
        Encoded([1, 2, prompt, *completion], 3) for prompt in range(100) for completion in ([7], [8], [9], [7, 8])
    ]
    learnt, judged = split_by_prompt(encoded, 0.2, seed=2)
    prompts = [{tuple(ids[:start]) for ids, start in side} for side in (learnt, judged)]
    assert prompts[0].isdisjoint(prompts[1]) and (len(prompts[0]), len(prompts[1])) == (80, 20)
    assert (len(learnt), len(judged)) == (320, 80) and {*map(str, learnt), *map(str, judged)} == {*map(str, encoded)}
    assert split_by_prompt(encoded, 0.2, seed=3) != (learnt, judged)
    assert split_by_prompt(encoded, 0.0, seed=2) == (encoded, [])
