"""The package: deterministic, whole, loadable by PEFT, and refused when anything about it was changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from adapters.device.package import CONFIG, METADATA, WEIGHTS, build_package, stamp_version, verify_package
from infra.canonical import digest, file_digests
from infra.errors import FactoryError
from tests.registry.samples import make_adapter, make_facts, make_lineage, make_package, make_release


@pytest.fixture
def package(tmp_path: Path) -> Path:
    release = make_release(tmp_path / "release")
    make_package(tmp_path, release, make_lineage(release[0]))
    return tmp_path / "package"


def _change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_metadata_describes_the_package(package: Path) -> None:
    metadata = verify_package(package)
    assert (metadata.feature, metadata.version, metadata.rank, metadata.alpha) == ("summarization", None, 2, 4.0)
    assert list(metadata.use_cases) == ["email", "messages"]
    sizes = sum((package / name).stat().st_size for name in (WEIGHTS, CONFIG))
    assert metadata.megabytes == sizes / 1e6
    config = json.loads((package / CONFIG).read_text())
    assert config["revision"] == metadata.base_release_digest


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    release = make_release(tmp_path / "release")
    for name in ("a", "b"):
        make_package(tmp_path / name, release, make_lineage(release[0]))
    assert file_digests(tmp_path / "a/package") == file_digests(tmp_path / "b/package")


def test_fp32_weights_are_shipped_in_fp16(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", dtype=np.float32)
    (tmp_path / "package").mkdir()
    build_package(adapter, tmp_path / "package", make_facts(digest(1), digest(2), make_lineage(digest(1))))
    assert {tensor.dtype for tensor in load_file(tmp_path / "package" / WEIGHTS).values()} == {np.dtype(np.float16)}


def test_a_version_is_stamped_without_changing_the_digest(package: Path, tmp_path: Path) -> None:
    for name in ("stamped", "again"):
        (tmp_path / name).mkdir()
    stamped = stamp_version(package, tmp_path / "stamped", 7)
    assert verify_package(tmp_path / "stamped").version == 7
    assert stamped.digest == verify_package(package).digest
    with pytest.raises(FactoryError, match="is version 7 already"):
        stamp_version(tmp_path / "stamped", tmp_path / "again", 8)


def test_peft_loads_it(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    release = make_release(tmp_path / "release")
    make_package(tmp_path, release, make_lineage(release[0]))
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, **shape))
    ids = torch.arange(6).unsqueeze(0)
    before = model(ids).logits
    adapted = PeftModel.from_pretrained(model, str(tmp_path / "package"))
    loaded = adapted.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default").weight
    shipped = load_file(tmp_path / "package" / WEIGHTS)
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert np.array_equal(loaded.detach().numpy(), shipped[key].astype(np.float32))
    assert not torch.allclose(adapted(ids).logits, before)


def test_a_changed_byte_is_refused(package: Path) -> None:
    content = bytearray((package / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (package / WEIGHTS).write_bytes(content)
    with pytest.raises(FactoryError, match="not the bytes that"):
        verify_package(package)


def test_an_unknown_file_is_refused(package: Path) -> None:
    (package / "run.pickle").write_text("")
    with pytest.raises(FactoryError, match=r"'run\.pickle' does not belong"):
        verify_package(package)


def test_a_path_that_escapes_is_refused(package: Path) -> None:
    files = json.loads((package / METADATA).read_text())["files"]
    _change(package / METADATA, files=files | {"../secret": files[WEIGHTS]})
    with pytest.raises(FactoryError, match="lists the wrong files"):
        verify_package(package)


@pytest.mark.parametrize("name", [WEIGHTS, METADATA])
def test_a_link_is_refused(package: Path, tmp_path: Path, name: str) -> None:
    (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FactoryError, match="no plain file"):
        verify_package(package)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 4}, "disagree on rank"),
        ({"feature": "../x"}, "feature: "),
        ({"format": 2}, "format: "),
        ({"unknown": 1}, "unknown: "),
        ({"base_release": "short"}, "base_release: "),
    ],
)
def test_wrong_metadata_is_refused(package: Path, change: dict[str, object], message: str) -> None:
    _change(package / METADATA, **change)
    with pytest.raises(FactoryError, match=message):
        verify_package(package)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": NaN', "[" * 100_000])
def test_damaged_metadata_is_one_line(package: Path, content: str) -> None:
    (package / METADATA).write_text(content)
    with pytest.raises(FactoryError) as caught:
        verify_package(package)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "option", [{"use_dora": True}, {"bias": "all"}, {"rank_pattern": {"q_proj": 4}}, {"peft_type": "IA3"}, {"r": 0}]
)
def test_only_plain_lora_is_packaged(tmp_path: Path, option: dict[str, object]) -> None:
    adapter = make_adapter(tmp_path / "adapter")
    _change(adapter / CONFIG, **option)
    with pytest.raises(FactoryError, match=next(iter(option))):
        build_package(adapter, tmp_path, make_facts(digest(1), digest(2), make_lineage(digest(1))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: {"m.lora_A.weight": a}, "pairs of lora_A and lora_B"),
        (lambda a, b: {"m.lora_A.weight": a, "m.lora_B.weight": b, "lm_head.weight": b}, "lm_head.weight"),
        (lambda a, b: {"m.lora_A.weight": a[:1], "m.lora_B.weight": b}, "not fp16 of rank 2"),
        (lambda a, b: {"m.lora_A.weight": a * np.float32(1e6), "m.lora_B.weight": b}, "not finite"),
    ],
)
def test_wrong_weights_are_refused(tmp_path: Path, change, message: str) -> None:
    adapter = make_adapter(tmp_path / "adapter", dtype=np.float32)
    tensors = load_file(adapter / WEIGHTS)
    side = {name.split(".")[-2]: tensor for name, tensor in tensors.items()}
    save_file(change(side["lora_A"], side["lora_B"]), adapter / WEIGHTS)
    with pytest.raises(FactoryError, match=message):
        build_package(adapter, tmp_path, make_facts(digest(1), digest(2), make_lineage(digest(1))))
