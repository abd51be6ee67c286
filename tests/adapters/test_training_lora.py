"""LoRA files and arithmetic against PEFT's own."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from adapters.inference import packed_attention
from adapters.inference.attention import grouped_attention
from adapters.inference.models import load_model
from adapters.recipe import LORA_TARGETS
from adapters.training import losses
from adapters.training.batching import Batch, Encoded, pad
from adapters.training.lora import continue_adapter, load_adapter, merge_adapter, new_adapter, save_adapter
from adapters.training.losses import completion_cross_entropy, completion_divergence, selected_hidden
from adapters.training.packing import pack
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

DIGEST = "ab" * 32


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("lora") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter of rank 4 whose B is not zero."""
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    save_adapter(stirred(new_adapter(load_model(base, torch.float32), 4, 8.0, seed=3)), folder, DIGEST)
    return folder


def stirred(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


def some_batch(shared: int = 0, packed: bool = True) -> Batch:
    """Five sequences of different lengths that begin with the same `shared` tokens."""
    generator = torch.Generator().manual_seed(1)
    beginning = list(range(100, 100 + shared))
    ids = [torch.randint(3, 512, (9 + 6 * row,), generator=generator).tolist() for row in range(5)]
    return Batch(tuple(Encoded(beginning + row, shared + len(row) // 2) for row in ids), packed)


def plain_peft(base: Path, adapter: Path) -> Any:
    """transformers' eager attention and PEFT's own layers in fp32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True)


def selected_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits at the positions of the loss mask."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal.get_output_embeddings()(selected_hidden(model, batch))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("shared", "packed"), [(0, True), (20, True), (0, False)])
@pytest.mark.parametrize(
    ("dtype", "loss_error", "gradient_error"), [(torch.float32, 1e-6, 1e-4), (torch.bfloat16, 5e-3, 0.1)]
)
def test_loss_and_gradients_equal_peft_and_transformers(
    base: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    loss_error: float,
    gradient_error: float,
    shared: int,
    packed: bool,
) -> None:
    monkeypatch.setattr(losses, "_ROWS", 7)  # several pieces of the vocabulary's loss
    monkeypatch.setattr(packed_attention, "_BLOCK", 8)  # several blocks of queries
    packed_attention._causal.cache_clear()
    batch = some_batch(shared, packed)
    reference = plain_peft(base, adapter)
    ids, mask = pad(batch.sequences)
    labels = torch.full_like(ids, -100)
    labels[:, 1:][mask[:, :-1]] = ids[:, 1:][mask[:, :-1]]
    wanted = reference(ids, labels=labels).loss
    wanted.backward()

    model = load_adapter(load_model(base, dtype), adapter, trainable=True)
    total, count = completion_cross_entropy(model, batch)
    (total / count).backward()
    assert count == int(mask.sum())
    assert (total / count).item() == pytest.approx(wanted.item(), rel=loss_error)
    ours, theirs = gradients(model), gradients(reference)
    assert ours.keys() == theirs.keys() and len(ours) == 2 * 7 * 2
    for name, gradient in ours.items():
        assert gradient.dtype == torch.float32
        assert (gradient - theirs[name]).norm() <= gradient_error * theirs[name].norm(), name


def test_divergence_and_gradients_equal_autograd(base: Path, adapter: Path) -> None:
    """More positions than go through the output matrix at once."""
    ids = torch.randint(3, 512, (8, 60), generator=torch.Generator().manual_seed(1))
    batch = Batch(tuple(Encoded(row, 1) for row in ids.tolist()))
    teacher = load_model(base, torch.float32)
    ours, theirs = (stirred(load_adapter(load_model(base, torch.float32), adapter, trainable=True)) for _ in range(2))
    with torch.no_grad():
        hidden, weight = selected_hidden(teacher, batch), teacher.get_output_embeddings().weight
    total, count = completion_divergence(ours, batch, hidden, weight)
    given, wanted = selected_logits(theirs, batch).log_softmax(-1), (hidden @ weight.T).log_softmax(-1)
    expected = torch.nn.functional.kl_div(given, wanted, log_target=True, reduction="sum")
    assert count == 8 * 59 and torch.allclose(total, expected, rtol=1e-5)
    total.backward(), expected.backward()
    reference = gradients(theirs)
    for name, gradient in gradients(ours).items():
        assert (gradient - reference[name]).norm() <= 1e-4 * reference[name].norm(), name


def test_what_a_gpu_would_compute_is_the_same(base: Path) -> None:
    """Attention by a mask over the whole row, as fused kernels take it."""
    batch = some_batch(20)
    row = pack(batch.sequences)
    model = load_model(base, torch.float32)
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, heads, len(row.ids), 16, generator=generator) for heads in (4, 2, 2))
    ours, _ = grouped_attention(None, q, k, v, None, segments=row.segments)
    mask = packed_attention.visible(row.segments, q.device)[None, None]
    theirs, _ = sdpa_attention_forward(model.model.layers[0].self_attn, q, k, v, mask)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_dropout_is_pefts(base: Path, adapter: Path) -> None:
    batch = some_batch(packed=False)
    model = continue_adapter(load_model(base, torch.float32), adapter, 4, 8.0, dropout=0.5)
    model.train()
    torch.manual_seed(0)
    first = selected_logits(model, batch)
    assert not torch.equal(first, selected_logits(model, batch))
    (reference := plain_peft(base, adapter)).train()
    for module in reference.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.5)
    torch.manual_seed(0)
    ids, learnt = pad(batch.sequences)
    hidden = reference.get_base_model().model(ids).last_hidden_state[learnt]
    assert torch.allclose(first, reference.get_base_model().lm_head(hidden), atol=1e-4)


def test_new_adapter_changes_nothing_yet_and_depends_on_its_seed(base: Path) -> None:
    batch = some_batch()
    plain = selected_logits(load_model(base, torch.float32), batch)
    torch.manual_seed(11)
    one, again, other = (new_adapter(load_model(base, torch.float32), 4, 8.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), torch.manual_seed(11) and torch.rand(1)), "the global state is left alone"
    assert torch.allclose(selected_logits(one, batch), plain, atol=1e-6)
    a = [next(p for name, p in m.named_parameters() if "lora_A" in name) for m in (one, again, other)]
    assert torch.equal(a[0], a[1]) and not torch.equal(a[0], a[2])
    trainable = {name.split(".")[-4] for name, p in one.named_parameters() if p.requires_grad}
    assert trainable == set(LORA_TARGETS)


def test_saved_folder_loads_with_peft(base: Path, adapter: Path) -> None:
    batch = some_batch()
    model = load_adapter(load_model(base, torch.float32), adapter)
    assert not any(p.requires_grad for p in model.parameters())
    ids, learnt = pad(batch.sequences)
    hidden = plain_peft(base, adapter).get_base_model().model(ids).last_hidden_state
    assert torch.allclose(selected_logits(model, batch), model.get_base_model().lm_head(hidden[learnt]), atol=1e-5)


def test_a_merged_adapter_computes_the_same(base: Path, adapter: Path) -> None:
    batch = some_batch()
    merged = merge_adapter(load_model(base, torch.float32), adapter)
    assert not any("lora" in name or p.requires_grad for name, p in merged.named_parameters())
    apart = selected_logits(load_adapter(load_model(base, torch.float32), adapter), batch)
    assert torch.allclose(selected_logits(merged, batch), apart, atol=1e-5)
    assert not torch.allclose(selected_logits(load_model(base, torch.float32), batch), apart, atol=1e-2)


def test_adapter_of_pefts_own_loads_here(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=list(LORA_TARGETS))
    stirred(get_peft_model(model, config)).save_pretrained(tmp_path)
    batch = some_batch(packed=False)
    ours = selected_logits(load_adapter(load_model(base, torch.float32), tmp_path), batch)
    assert torch.allclose(ours, selected_logits(plain_peft(base, tmp_path), batch), atol=1e-5)


def test_files_are_fp16_deterministic_and_name_the_base(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert {t.dtype for t in load_file(adapter / "adapter_model.safetensors").values()} == {torch.float16}
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == config["revision"] == DIGEST
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8.0, True)
    assert str(base) not in (adapter / "adapter_config.json").read_text("utf-8")
    save_adapter(load_adapter(load_model(base, torch.float32), adapter), tmp_path, DIGEST)
    for path in adapter.iterdir():
        assert sha256(path) == sha256(tmp_path / path.name)


@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (4, 2.0), (7, 21.0)])
def test_a_grown_adapter_computes_the_same(base: Path, adapter: Path, rank: int, alpha: float) -> None:
    batch = some_batch()
    before = selected_logits(load_adapter(load_model(base, torch.float32), adapter), batch)
    grown = continue_adapter(load_model(base, torch.float32), adapter, rank, alpha, seed=5)
    assert torch.allclose(selected_logits(grown, batch), before, atol=1e-5)
    total, _ = completion_cross_entropy(grown, batch)
    total.backward()
    shapes = {p.shape[0] for name, p in grown.named_parameters() if "lora_A" in name}
    assert shapes == {rank}
    # Fresh ranks must be able to learn: A is random there, so their B has a gradient.
    assert all(g[:, 4:].abs().sum() > 0 for name, g in gradients(grown).items() if "lora_B" in name and rank > 4)


def test_what_does_not_fit_is_told(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match="rank 2 is below the recovery adapter's 4"):
        continue_adapter(load_model(base, torch.float32), adapter, 2, 8.0)
    with pytest.raises(FactoryError, match=r"no adapter_config\.json"):
        load_adapter(load_model(base, torch.float32), tmp_path)
    wider = make_tiny_base(tmp_path / "wider", hidden=128)
    with pytest.raises(FactoryError, match="does not fit this model"):
        load_adapter(load_model(wider, torch.float32), adapter)
    deeper = make_tiny_base(tmp_path / "deeper", layers=3)
    with pytest.raises(FactoryError, match="other layers than this model"):
        continue_adapter(load_model(deeper, torch.float32), adapter, 4, 8.0)


def changed_config(adapter: Path, folder: Path, **changes: Any) -> Path:
    """The adapter with other values in its configuration."""
    shutil.copytree(adapter, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    return folder


@pytest.mark.parametrize(
    "change", [{"use_dora": True}, {"lora_bias": True}, {"bias": "lora_only"}, {"peft_type": "IA3"}], ids=str
)
def test_variants_of_lora_are_refused(base: Path, adapter: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    (key,) = change
    folder = changed_config(adapter, tmp_path / "variant", **change)
    for wrap in (load_adapter, lambda model, folder: continue_adapter(model, folder, 4, 8.0)):
        with pytest.raises(FactoryError, match=rf"variant: .*{key}: .*only plain LoRA") as told:
            wrap(load_model(base, torch.float32), folder)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "change",
    [{"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}}],
    ids=str,
)
def test_scales_that_differ_by_layer_are_no_start(
    base: Path, adapter: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    (key,) = change
    folder = changed_config(adapter, tmp_path / "variant", **change)
    with pytest.raises(FactoryError, match=rf"{key}: .*training\.start"):
        continue_adapter(load_model(base, torch.float32), folder, 4, 8.0)


def test_a_rank_stabilized_adapter_is_computed_as_peft_does(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = changed_config(adapter, tmp_path / "variant", use_rslora=True)
    batch = some_batch(packed=False)
    ours = selected_logits(load_adapter(load_model(base, torch.float32), folder), batch)
    assert torch.allclose(ours, selected_logits(plain_peft(base, folder), batch), atol=1e-5)


def test_target_modules_other_than_the_starts_are_told_by_their_key(base: Path, adapter: Path) -> None:
    with pytest.raises(FactoryError, match=r"training\.target_modules .* down_proj, gate_proj, k_proj"):
        continue_adapter(load_model(base, torch.float32), adapter, 4, 8.0, target_modules=["q_proj", "v_proj"])


def test_weights_over_fp16_are_refused(base: Path, tmp_path: Path) -> None:
    model = new_adapter(load_model(base, torch.float32), 4, 8.0)
    next(p for p in model.parameters() if p.requires_grad).data[0, 0] = 1e6
    with pytest.raises(FactoryError, match="not finite in fp16"):
        save_adapter(model, tmp_path, DIGEST)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
