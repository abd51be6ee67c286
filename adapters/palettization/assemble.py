"""The base release as one folder: weights, tokenizer, recovery adapter, Core AI asset, gate report and manifest."""

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.evaluation.gates import GateReport
from adapters.palettization.recipe import ReleaseRecipe
from infra.canonical import file_digests
from infra.errors import FactoryError

MANIFEST = "release.json"
GATES = "gates.json"
RECOVERY = "recovery"
AIMODEL = "model.aimodel"


class Manifest(BaseModel):
    """`release.json`.

    `key` is the digest of the release's lineage, `base` that of the base model, `gates` that of the gate report, whose
    figures and verdict are repeated; `files` holds the SHA-256 of every other file by path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    base: str
    recipe: dict[str, Any]
    figures: dict[str, float]
    passed: bool
    gates: str
    files: dict[str, str]

    @property
    def bits_per_weight(self) -> list[float]:
        """Over the linear weights, over all weights, and over all with the recovery adapter on top."""
        return [self.figures[name] for name in ("bpw_linear", "bpw_all", "bpw_all_with_recovery")]


def assemble_release(
    key: str,
    base_digest: str,
    recipe: ReleaseRecipe,
    palettized: Path,
    recovery: Path,
    aimodel: Path,
    evidence: Path,
    output: Path,
) -> None:
    """Copy the stages' outputs into one release folder and write `release.json`.

    Args:
        key: digest of the release's lineage.
        palettized, recovery, aimodel, evidence: the output folders of the stages of these names.
    """
    shutil.copytree(palettized, output, dirs_exist_ok=True)
    shutil.copytree(aimodel, output, dirs_exist_ok=True)
    shutil.copytree(recovery, output / RECOVERY)
    shutil.copyfile(evidence / GATES, output / GATES)
    report = GateReport.from_json((output / GATES).read_text("utf-8"))
    manifest = Manifest(
        key=key,
        base=base_digest,
        recipe=recipe.model_dump(mode="json"),
        figures=dict(report.figures),
        passed=report.passed,
        gates=report.digest,
        files=file_digests(output),
    )
    (output / MANIFEST).write_text(json.dumps(manifest.model_dump(), indent=2, sort_keys=True) + "\n", "utf-8")


def read_manifest(release: Path) -> Manifest:
    """The manifest of a release folder.

    Raises:
        FactoryError: there is none, or it is no manifest.
    """
    try:
        return Manifest.model_validate_json((release / MANIFEST).read_text("utf-8"))
    except (OSError, ValidationError) as error:
        raise FactoryError(f"{release / MANIFEST}: not a base release: {str(error).splitlines()[0]}") from None
