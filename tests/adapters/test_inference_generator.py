"""The generator against transformers' own, on a tiny random model in fp32."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.inference.chat import answer_ids, chat_ids
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Answer, Prompt, Sampling
from adapters.training.lora import new_adapter
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

RAGGED = [Prompt("Be brief.", "hello garden " * (1 + 7 * i % 23)) for i in range(13)]
# Several tokens end an answer, so that a random model's answers end at many lengths.
ENDS = [2, *range(40, 50)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base whose layers weigh so much that its greedy answers do not just repeat a token."""
    folder = make_tiny_base(tmp_path_factory.mktemp("generator") / "base")
    weights = load_file(folder / "model.safetensors")
    louder = {name: tensor * 8 if "_proj" in name else tensor for name, tensor in weights.items()}
    save_file(louder, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def expected(base: Path) -> list[tuple[str, int]]:
    """Text and length of what transformers answers to each ragged prompt alone, greedily."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = load_tokenizer(base)
    answers = []
    for prompt in RAGGED:
        ids = torch.tensor([chat_ids(tokenizer, prompt)])
        options = {"max_new_tokens": 90, "do_sample": False, "eos_token_id": ENDS}
        made = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
        answers.append((tokenizer.decode(made, skip_special_tokens=True).strip(), len(made)))
    return answers


def tiny(base: Path) -> tuple[Any, Any]:
    model = load_model(base, torch.float32)
    model.generation_config.eos_token_id = ENDS
    return model, load_tokenizer(base)


def test_chat_ends_where_the_answer_begins(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    ids = chat_ids(tokenizer, Prompt("Be brief.", "hello"))
    assert tokenizer.decode(ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "system" not in tokenizer.decode(chat_ids(tokenizer, Prompt("", "hello")))
    chat = [("system", "Be brief."), ("user", "hello"), ("assistant", "fine")]
    whole = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in chat], tokenize=False)
    assert tokenizer.decode(ids + answer_ids(tokenizer, "fine")) == whole.removesuffix("\n")


@pytest.mark.parametrize("batch_tokens", [1, 700, 32768])
def test_greedy_equals_transformers(base: Path, expected: list[tuple[str, int]], batch_tokens: int) -> None:
    model, tokenizer = tiny(base)
    answers = LocalGenerator(model, tokenizer, batch_tokens).generate(RAGGED, Sampling(max_new_tokens=90))
    found = [(answer.text, answer.tokens) for (answer,) in answers]
    assert found == expected
    assert len({tokens for _, tokens in found}) > 3, "the answers shall end at different lengths"
    assert all(answer.finished == (answer.tokens < 90) for (answer,) in answers)


def test_samples_do_not_depend_on_their_neighbours(base: Path) -> None:
    model, tokenizer = tiny(base)
    sampling = Sampling(max_new_tokens=30, temperature=1.0, top_p=0.9, candidates=3, seed=5)
    together = LocalGenerator(model, tokenizer).generate(RAGGED, sampling)
    alone = [LocalGenerator(model, tokenizer).generate([prompt], sampling)[0] for prompt in RAGGED]
    assert texts(together) == texts(alone)
    fewer = LocalGenerator(model, tokenizer).generate(RAGGED, replace(sampling, candidates=2))
    assert texts(fewer) == [row[:2] for row in texts(together)]
    assert len({text for row in texts(together) for text in row}) > len(RAGGED)
    assert texts(LocalGenerator(model, tokenizer).generate(RAGGED, replace(sampling, seed=6))) != texts(together)


def test_an_adapter_is_used(base: Path) -> None:
    model, tokenizer = tiny(base)
    plain = LocalGenerator(model, tokenizer).generate(RAGGED[:3], Sampling(12))
    adapted = new_adapter(model, rank=4, alpha=8.0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    assert texts(LocalGenerator(adapted, tokenizer).generate(RAGGED[:3], Sampling(12))) != texts(plain)


def test_log_probability_is_the_models_own(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny(base)
    drawn: list[list[int]] = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **options: drawn.append(list(ids)) or decode(ids, **options))
    sampling = Sampling(8, temperature=0.5, top_p=0.5)
    ((answer,),) = LocalGenerator(model, tokenizer).generate(RAGGED[:1], sampling)
    prompt, made = chat_ids(tokenizer, RAGGED[0]), drawn[0]
    logits = model(torch.tensor([prompt + made])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert answer.logprob == pytest.approx(logits[torch.arange(len(made)), made].mean().item(), abs=1e-4)
    assert answer.tokens == len(made)


def test_ended_rows_leave_and_waiting_prompts_join(base: Path) -> None:
    model, tokenizer = tiny(base)
    sizes: list[tuple[int, int]] = []
    model.get_decoder().register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [prompt for prompt in RAGGED if len(prompt.user) > 150]
    LocalGenerator(model, tokenizer, 800).generate(prompts, Sampling(90, candidates=2, temperature=1.5, seed=1))
    steps = [rows for rows, length in sizes if length == 1]
    prefilled = [rows for rows, length in sizes if length > 1]
    assert sum(prefilled) == len(prompts), "each prompt is run once"
    assert min(steps) < max(steps), "rows that ended leave the batch"
    assert any(b > a for a, b in pairwise(steps)), "waiting prompts take the free rows"


def test_callback_hears_of_every_prompt_once(base: Path) -> None:
    model, tokenizer = tiny(base)
    heard: dict[int, list[Answer]] = {}
    answers = LocalGenerator(model, tokenizer, 700).generate(RAGGED, Sampling(20, candidates=2), heard.__setitem__)
    assert [heard[i] for i in range(len(RAGGED))] == answers


def test_no_prompts_no_answers(base: Path) -> None:
    assert LocalGenerator(*tiny(base)).generate([], Sampling(5)) == []


def test_a_prompt_over_the_context_is_named(base: Path) -> None:
    long = Prompt("", "hello garden " * 2000)
    with pytest.raises(FactoryError, match=r"prompt 1 has \d+ tokens .* over the model's 1024"):
        LocalGenerator(*tiny(base)).generate([RAGGED[0], long], Sampling(5))


def texts(answers: list[list[Answer]]) -> list[list[str]]:
    return [[answer.text for answer in row] for row in answers]
