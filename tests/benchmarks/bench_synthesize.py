"""Generated tokens per CPU-second: ours against `transformers.generate` as people call it, and against llama.cpp.

Four sampled candidates for each of our own chats, the real base model. transformers runs in fp32, one document a call,
with `num_return_sequences=4`. llama.cpp runs the file that the base was dequantised from, one candidate after another;
it keeps the prompt's cache between them. Ours is bf16 over all documents at once, which is the way synthesis uses it;
so it gets more of them. Without llama-cpp-python (the extra `peers`) its figure is left out.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM

from adapters.inference.chat import chat_ids
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Prompt, Sampling
from infra.compute import Compute
from tests.benchmarks.common import Figure, against, base_folder, dialogues, per_cpu_second

ROUNDS = 3
OUR_DOCUMENTS = 24
PEER_DOCUMENTS = 2
SAMPLING = Sampling(max_new_tokens=64, temperature=0.7, top_p=0.95, candidates=4)

# Generates answers to prompts and returns how many tokens they have.
Side = Callable[[list[Prompt]], int]


def run() -> list[Figure]:
    """Medians of interleaved rounds, each round on other documents."""
    folder = base_folder()
    records = dialogues(ROUNDS * OUR_DOCUMENTS)
    prompts = [Prompt("You write short summaries.", f"Summarize this chat.\n\n{r.input}") for r in records]
    generator = LocalGenerator(load_model(folder, Compute().dtype), load_tokenizer(folder))

    def ours(some: list[Prompt]) -> int:
        return sum(answer.tokens for answers in generator.generate(some, SAMPLING) for answer in answers)

    with TemporaryDirectory() as scratch:
        peers = {"speed_vs_generate": _transformers(folder)}
        if find_spec("llama_cpp"):
            peers["speed_vs_llama_cpp"] = _llama_cpp(folder, Path(scratch))
        for side in (ours, *peers.values()):
            side(prompts[:1])  # first calls choose and compile kernels
        speeds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
        for start in range(0, len(prompts), OUR_DOCUMENTS):
            speeds["ours"].append(per_cpu_second(partial(ours, prompts[start : start + OUR_DOCUMENTS])))
            for name, peer in peers.items():
                speeds[name].append(per_cpu_second(partial(peer, prompts[start : start + PEER_DOCUMENTS])))
    return [against(name, "tokens/CPU-s", speeds["ours"], speeds[name]) for name in peers]


def _transformers(folder: Path) -> Side:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), load_tokenizer(folder)

    def generate(prompts: list[Prompt]) -> int:
        tokens = 0
        for prompt in prompts:
            ids = torch.tensor([chat_ids(tokenizer, prompt)])
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=SAMPLING.max_new_tokens,
                do_sample=True,
                temperature=SAMPLING.temperature,
                top_p=SAMPLING.top_p,
                top_k=0,
                num_return_sequences=SAMPLING.candidates,
            )
            tokens += sum(_answer_length(row, tokenizer.eos_token_id) for row in made[:, ids.shape[1] :].tolist())
        return tokens

    return generate


def _llama_cpp(folder: Path, scratch: Path) -> Side:
    from llama_cpp import Llama

    from tests.benchmarks.peers import wheel_gguf

    tokenizer = load_tokenizer(folder)
    threads = torch.get_num_threads()
    model = Llama(str(wheel_gguf(scratch)), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)

    def generate(prompts: list[Prompt]) -> int:
        tokens = 0
        for prompt in prompts:
            ids = chat_ids(tokenizer, prompt)
            for candidate in range(SAMPLING.candidates):
                made = model.create_completion(
                    ids,
                    max_tokens=SAMPLING.max_new_tokens,
                    temperature=SAMPLING.temperature,
                    top_p=SAMPLING.top_p,
                    top_k=0,
                    min_p=0.0,
                    seed=candidate,
                )
                # The token that ended an answer counts on the other sides.
                ended = made["choices"][0]["finish_reason"] == "stop"
                tokens += made["usage"]["completion_tokens"] + ended
        return tokens

    return generate


def _answer_length(tokens: list[int], end: int) -> int:
    """Tokens up to the first end; what follows is padding."""
    return tokens.index(end) + 1 if end in tokens else len(tokens)
