"""The release recipe: the YAML file that determines a base release, in sections that are hashed one by one."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from adapters.palettization.text import FrozenText, TextFile, file_key
from adapters.recipe import Profile, Section, load_yaml, validate

RELEASE_YAML = Path(__file__).with_name("release.yaml")


class CalibrationSection(Section):
    """The text that a release is fitted to: a frozen file, and what the base itself writes to frozen prompts."""

    text: FrozenText
    prompts: TextFile = "prompts-2.txt"
    sampled_tokens: int = Field(default=0, ge=0, description="of the base's own text, prompts included")
    seed: int = 0

    @property
    def key(self) -> dict[str, str]:
        """What decides the windows, with the base model and the code."""
        return {"recipe": self.digest, "text": self.text.key["content"], "prompts": file_key(self.prompts)}


class SensitivitiesSection(Section):
    """What the Fisher information is estimated from."""

    tokens: int = Field(default=8192, gt=0, description="of the calibration windows")
    seed: int = Field(default=0, description="of the labels, which are drawn from the model")


class PalettizationSection(Section):
    """How the linear weights become indices and look-up tables (LUTs). The embedding is int8 per row.

    With one format every tensor takes it; of several, each tensor takes the one that the allocation finds for it.
    """

    bits: list[Literal[1, 2, 3, 4, 6, 8]] = Field(default=[4], min_length=1, description="bits per weight of indices")
    group_sizes: list[Literal[4, 8, 16, 32]] = Field(
        default=[16], min_length=1, description="channels that share a LUT"
    )
    bits_per_weight: float | None = Field(default=None, gt=1, le=9, description="target, tables included")
    compensate: bool = Field(default=False, description="error-compensating assignment: minutes instead of seconds")
    tokens: int = Field(default=16384, gt=0, description="of the calibration windows, for the compensation")

    @property
    def options_key(self) -> dict[str, object]:
        """What decides how much each format would cost, whatever the target."""
        return self.model_dump(exclude={"bits_per_weight"})

    @model_validator(mode="after")
    def _several_formats_need_a_target(self) -> "PalettizationSection":
        if (self.bits_per_weight is None) != (len(self.bits) * len(self.group_sizes) == 1):
            raise ValueError("several bits or group_sizes need a target bits_per_weight, a single format takes none")
        return self


class TuningSection(Section):
    """The end-to-end training of the tables; none with 0 steps."""

    steps: int = Field(default=0, ge=0)
    tokens: int = Field(default=65536, gt=0, description="of the calibration windows, read over and over")
    batch_tokens: int = Field(default=1024, gt=0, description="tokens per optimiser step")
    learning_rate: float = Field(default=1e-3, gt=0, description="in standard deviations of a table's entries")
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    seed: int = 0


class RecoverySection(Section):
    """The accuracy-recovery adapter: LoRA and optimiser settings of the distillation."""

    tokens: int = Field(default=65536, gt=0, description="of the calibration windows, read over and over")
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
    decode_steps: int = Field(default=2, gt=0, description="greedy tokens that are verified for each adapter")
    second_adapter: bool = Field(default=False, description="whether the asset is run with two adapters and without")


class ReleaseRecipe(Section):
    """The whole release recipe, after its profile's changes were merged in."""

    calibration: CalibrationSection
    sensitivities: SensitivitiesSection = SensitivitiesSection()
    palettization: PalettizationSection = PalettizationSection()
    tuning: TuningSection = TuningSection()
    recovery: RecoverySection
    export: ExportSection = ExportSection()
    gates: GatesSection

    def with_target(self, bits_per_weight: float) -> "ReleaseRecipe":
        """The recipe with another target for the linear weights; a single format gives way to all that there are.

        Raises:
            FactoryError: the target is out of range.
        """
        section = self.palettization.model_dump() | {"bits_per_weight": bits_per_weight}
        if self.palettization.bits_per_weight is None:
            section |= {"bits": [2, 3, 4, 6], "group_sizes": [4, 8, 16, 32]}
        return validate(ReleaseRecipe, self.model_dump() | {"palettization": section}, "bits_per_weight")


def load_release_recipe(profile: Profile = "quick", path: Path = RELEASE_YAML) -> ReleaseRecipe:
    """Load a release recipe, by default the one of this package.

    Raises:
        FactoryError: missing file, bad YAML, or any number of wrong keys, all named.
    """
    return validate(ReleaseRecipe, load_yaml(path, profile), path)
