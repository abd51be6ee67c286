"""Small real things that the registry's tests share: adapters, packages, lineages, gate reports, base releases."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adapters.device.package import CONFIG, WEIGHTS, Facts, PackagedUseCase, PackageMetadata, build_package
from adapters.evaluation.gates import GateReport, at_least
from adapters.lineage import Lineage
from infra.canonical import digest, digest_folder
from registry.decisions import Action, Decision

ACTOR = "tester"
USE_CASES = {
    "email": PackagedUseCase(prompt="Summarize: {input}", max_new_tokens=12),
    "messages": PackagedUseCase(prompt="Sum up: {input}", max_new_tokens=16),
}


def make_adapter(folder: Path, seed: int = 0, rank: int = 2, dtype: type = np.float16) -> Path:
    """A random PEFT adapter for one projection of a model with hidden size 8."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(seed)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": numbers.normal(size=(rank, 8)).astype(dtype),
        f"{module}.lora_B.weight": numbers.normal(size=(8, rank)).astype(dtype),
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    return folder


def make_release(folder: Path, name: str = "one") -> tuple[str, Path]:
    """A base release's key and folder, with the files that a device gets and one that it does not."""
    for path, text in {
        "release.json": f'{{"name": "{name}"}}',
        "tokenizer.json": "{}",
        "palettized.safetensors": "weights",
        "model.aimodel/main.mlirb": f"program {name}",
        "recovery/adapter_config.json": "{}",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    return digest(release_lineage(name)), folder


def release_lineage(name: str = "one") -> dict[str, str]:
    """What a base release is made from."""
    return {"base_model": digest(["base", name]), "recipe": digest("release recipe")}


def make_lineage(release: str, data: str = "one", evaluator: str = "one") -> Lineage:
    """A lineage with one key that tests change, and an evaluation key."""
    build = {"base_release": release, "data": digest(data), "recipe.training": digest("training")}
    return Lineage(build, {"held_out": digest("held out"), "code.evaluation": digest(evaluator)})


def make_package(
    folder: Path, release: tuple[str, Path], lineage: Lineage, seed: int = 0, feature: str = "summarization"
) -> PackageMetadata:
    """A package of a random adapter in `folder/package`."""
    output = folder / "package"
    output.mkdir(parents=True)
    facts = make_facts(release[0], digest_folder(release[1]), lineage, feature)
    return build_package(make_adapter(folder / "adapter", seed), output, facts)


def make_facts(release: str, release_digest: str, lineage: Lineage, feature: str = "summarization") -> Facts:
    """What a package states besides its weights."""
    return Facts(
        feature=feature,
        base_release=release,
        base_release_digest=release_digest,
        tokenizer=digest("tokenizer"),
        system="You summarize.",
        use_cases=USE_CASES,
        lineage=lineage.build,
        license="Apache-2.0",
    )


def make_report(subject: str = "summarization", passed: bool = True, figure: float = 0.3) -> GateReport:
    """A report of one gate."""
    return GateReport(
        subject, [at_least("better_than_baseline", figure, 0.2 if passed else 0.9)], {"candidate": figure}
    )


def make_decision(feature: str, action: Action, version: int, lineage: Lineage, **more: Any) -> Decision:
    """A decision about a version that was built from `lineage`."""
    keys: dict[str, Any] = {
        "base_release": lineage.build["base_release"],
        "lineage": lineage.build,
        "evaluation": lineage.evaluation,
        "evaluation_key": lineage.evaluation_key,
        "package": digest(["package", version]),
        "evidence": digest(["evidence", version]),
        "actor": ACTOR,
        "reason": "test",
    }
    return Decision.model_validate({"feature": feature, "action": action, "version": version} | keys | more)
