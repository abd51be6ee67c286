"""The release recipe: the YAML file that determines a base release, in sections that are hashed one by one."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from adapters.palettization.text import FrozenText
from adapters.recipe import Profile, Section, load_yaml, validate

RELEASE_YAML = Path(__file__).with_name("release.yaml")


class SensitivitiesSection(Section):
    """What the Fisher information is estimated from."""

    text: FrozenText
    seed: int = Field(default=0, description="of the labels, which are drawn from the model")


class PalettizationSection(Section):
    """How the linear weights become indices and look-up tables (LUTs). The embedding is int8 per row."""

    bits: Literal[2, 4] = Field(default=4, description="bits of an index; a LUT has 2**bits entries")
    group_size: Literal[4, 8, 16, 32] = Field(default=16, description="output channels that share a LUT")


class RecoverySection(Section):
    """The accuracy-recovery adapter: LoRA and optimiser settings of the distillation."""

    text: FrozenText
    rank: int = Field(default=16, gt=0, le=64)
    alpha: float = Field(default=32.0, gt=0)
    steps: int = Field(gt=0)
    batch_tokens: int = Field(default=1024, gt=0, description="tokens per optimiser step")
    learning_rate: float = Field(default=3e-4, gt=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 0


class ExportSection(Section):
    """The Core AI asset: what it takes."""

    context: int = Field(default=1024, ge=64, description="positions of the KV cache")
    prefill_tokens: int = Field(default=64, ge=2, description="T of the function `prefill`")
    max_rank: int = Field(default=32, gt=0, le=64, description="rank of the LoRA inputs; smaller adapters are padded")


class GatesSection(Section):
    """What a release must reach, on held-out text and against PyTorch."""

    text: FrozenText
    max_kl: float = Field(gt=0, description="nats per token to the full-precision base, with the recovery adapter")
    min_psnr_db: float = Field(default=50.0, gt=0, description="the asset's logits against PyTorch's")
    min_argmax_agreement: float = Field(default=1.0, gt=0, le=1)
    decode_steps: int = Field(default=2, gt=0, description="tokens that are verified through `decode`, each adapter")


class ReleaseRecipe(Section):
    """The whole release recipe, after its profile's changes were merged in."""

    sensitivities: SensitivitiesSection
    palettization: PalettizationSection = PalettizationSection()
    recovery: RecoverySection
    export: ExportSection = ExportSection()
    gates: GatesSection


def load_release_recipe(profile: Profile = "quick", path: Path = RELEASE_YAML) -> ReleaseRecipe:
    """Load a release recipe, by default the one of this package.

    Raises:
        FactoryError: missing file, bad YAML, or any number of wrong keys, all named.
    """
    return validate(ReleaseRecipe, load_yaml(path, profile), path)
