"""The package: what a device downloads for one adapter, a folder that `PeftModel.from_pretrained` loads too.

Notable choices:
- `metadata.json` names the two other files with size and SHA-256, so its digest stands for the whole package.
- A package is built before it has a version number: the registry gives one out only when the package is registered.
  `stamp_version` writes the number into the copy that ships. The digest leaves the number out, so what was tested,
  what is registered and what a device holds have one digest.
- The same adapter and the same facts give the same bytes; no path, date or machine enters.
- Only plain LoRA is packaged (one rank, one alpha, no bias, no DoRA): that is what the device's asset takes as inputs.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from infra.canonical import digest, digest_file
from infra.errors import FactoryError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
METADATA = "metadata.json"

_SHA256 = r"^[0-9a-f]{64}$"
# Options of PEFT that change the arithmetic, with the only value under which it is plain LoRA.
_PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackagedFile(_Frozen):
    """Size and content of one file of a package."""

    sha256: str = Field(pattern=_SHA256)
    bytes: int = Field(ge=0)


class PackagedUseCase(_Frozen):
    """How the device puts one use case's input to the model: `{input}` in the prompt is replaced."""

    prompt: str
    max_new_tokens: int = Field(gt=0)


class Facts(_Frozen):
    """What a device and an auditor must know about an adapter besides its weights.

    `base_release` is the key of the release that the adapter runs on, `base_release_digest` the digest of its content;
    `tokenizer` is the SHA-256 of its `tokenizer.json`; `lineage` holds the build keys.
    """

    feature: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    base_release: str = Field(pattern=_SHA256)
    base_release_digest: str = Field(pattern=_SHA256)
    tokenizer: str = Field(pattern=_SHA256)
    system: str
    use_cases: dict[str, PackagedUseCase] = Field(min_length=1)
    lineage: dict[str, str]
    license: str = Field(min_length=1)


class PackageMetadata(Facts):
    """The content of `metadata.json`."""

    format: Literal[1] = 1
    version: int | None = Field(default=None, gt=0, description="set by stamp_version")
    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    files: dict[str, PackagedFile]

    @property
    def digest(self) -> str:
        """SHA-256 that stands for the whole package, its version number left out."""
        return digest(self.model_dump(mode="json", exclude={"version"}))

    @property
    def megabytes(self) -> float:
        """Size of the files that a device downloads, in 10^6 bytes."""
        return sum(file.bytes for file in self.files.values()) / 1e6


def build_package(adapter_folder: Path, output: Path, facts: Facts) -> PackageMetadata:
    """Make a package, without a version yet, from a PEFT folder with fp16 or fp32 weights; `output` is an empty folder.

    Raises:
        FactoryError: the folder holds no plain LoRA adapter, or a value is not finite in fp16.
    """
    config = _read_json(adapter_folder / CONFIG)
    rank, alpha = _plain_lora(config, adapter_folder / CONFIG)
    tensors = _read_weights(adapter_folder / WEIGHTS)
    with np.errstate(over="ignore"):
        tensors = {name: tensor.astype(np.float16) for name, tensor in sorted(tensors.items())}
    _check_weights(tensors, rank, adapter_folder / WEIGHTS)
    save_file(tensors, output / WEIGHTS, metadata={"format": "pt"})
    config |= {"base_model_name_or_path": facts.base_release, "revision": facts.base_release_digest}
    config |= {"inference_mode": True, "target_modules": sorted(config["target_modules"])}
    _write_json(output / CONFIG, config)
    files = {
        name: PackagedFile(sha256=digest_file(output / name), bytes=(output / name).stat().st_size)
        for name in (CONFIG, WEIGHTS)
    }
    metadata = PackageMetadata(**dict(facts), rank=rank, alpha=alpha, files=files)
    _write_json(output / METADATA, metadata.model_dump(mode="json"))
    return metadata


def verify_package(folder: Path) -> PackageMetadata:
    """Check a package from anywhere, file by file and tensor by tensor, and return its metadata.

    Raises:
        FactoryError: a file is missing, unknown, a link, changed or no package file at all; tensors and rank disagree.
    """
    metadata = _read_metadata(folder)
    if metadata.files.keys() != {WEIGHTS, CONFIG}:
        odd = sorted(metadata.files.keys() ^ {WEIGHTS, CONFIG})[0]
        raise FactoryError(f"{folder / METADATA}: lists the wrong files ({odd!r}); a package holds {WEIGHTS}, {CONFIG}")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    if unknown := sorted(found - {WEIGHTS, CONFIG, METADATA}):
        raise FactoryError(f"{folder}: {unknown[0]!r} does not belong into a package; remove it or fetch it again")
    for name in (METADATA, *metadata.files):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise FactoryError(f"{folder / name}: missing or no plain file; fetch the package again")
    for name, stated in metadata.files.items():
        path = folder / name
        if path.stat().st_size != stated.bytes or digest_file(path) != stated.sha256:
            raise FactoryError(f"{path}: not the bytes that {METADATA} promises; fetch the package again")
    rank, alpha = _plain_lora(_read_json(folder / CONFIG), folder / CONFIG)
    if (rank, alpha) != (metadata.rank, metadata.alpha):
        raise FactoryError(f"{folder}: {CONFIG} and {METADATA} disagree on rank or alpha; build the package again")
    _check_weights(_read_weights(folder / WEIGHTS), rank, folder / WEIGHTS)
    return metadata


def stamp_version(package: Path, output: Path, version: int) -> PackageMetadata:
    """Copy a verified package into the empty folder `output` with its version number; the digest stays the same.

    Raises:
        FactoryError: the package is not whole, or carries another version already.
    """
    metadata = verify_package(package)
    if metadata.version not in (None, version):
        raise FactoryError(f"{package}: is version {metadata.version} already and cannot become {version}")
    stamped = metadata.model_copy(update={"version": version})
    for name in metadata.files:
        shutil.copyfile(package / name, output / name)
    _write_json(output / METADATA, stamped.model_dump(mode="json"))
    return stamped


def _read_metadata(folder: Path) -> PackageMetadata:
    path = folder / METADATA
    try:
        return PackageMetadata.model_validate(_read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise FactoryError(f"{path}: {place}: {first['msg']}; build or fetch the package again") from None


def _plain_lora(config: dict[str, Any], path: Path) -> tuple[int, float]:
    for option, plain in _PLAIN.items():
        if (config.get(option, plain) or None) != (plain or None):
            raise FactoryError(
                f"{path}: {option} is {config[option]!r}; a device takes plain LoRA only, {plain!r} here"
            )
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float) and alpha > 0):
        raise FactoryError(f"{path}: r and lora_alpha must be positive numbers, they are {rank!r} and {alpha!r}")
    if not (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        raise FactoryError(f"{path}: target_modules must be a list of module names, it is {targets!r}")
    return rank, float(alpha)


def _check_weights(tensors: Mapping[str, np.ndarray[Any, Any]], rank: int, path: Path) -> None:
    """Every module has A [rank, in] and B [out, rank] in finite fp16, and there is nothing else."""
    modules = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    expected = {f"{module}.lora_{side}.weight" for module in modules for side in "AB"}
    if not modules or tensors.keys() != expected:
        odd = next(iter(sorted(tensors.keys() ^ expected)), "no tensor at all")
        raise FactoryError(f"{path}: not pairs of lora_A and lora_B ({odd}); train the adapter again")
    for name, tensor in tensors.items():
        along_rank = tensor.shape[0 if ".lora_A." in name else -1] if tensor.ndim == 2 else None
        if tensor.dtype != np.float16 or along_rank != rank:
            raise FactoryError(f"{path}: {name} is {tensor.dtype} {list(tensor.shape)}, not fp16 of rank {rank}")
        if not np.isfinite(tensor).all():
            raise FactoryError(f"{path}: {name} is not finite in fp16; lower training.learning_rate and train again")


def _read_weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise FactoryError(f"{path}: no such file, so no adapter; name a folder that PEFT can load") from None
    except (SafetensorError, TypeError, KeyError) as error:
        raise FactoryError(f"{path}: not fp16 or fp32 safetensors ({error}); build or fetch it again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FactoryError(f"{path}: no such file; name the folder of an adapter or package") from None
    except (ValueError, RecursionError) as error:
        raise FactoryError(f"{path}: not JSON ({error}); build or fetch it again") from None
    if not isinstance(content, dict):
        raise FactoryError(f"{path}: not a JSON object; build or fetch it again")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
