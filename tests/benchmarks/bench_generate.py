"""Generated tokens per CPU-second: ours against `transformers.generate` as people call it.

Four sampled candidates for each of our own chats, the real base model. The peer is fp32, one document a call, with
`num_return_sequences=4`. Ours is bf16 over all documents at once, which is the way it is used; so it gets more of them.
"""

from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from adapters.inference.chat import chat_ids
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Prompt, Sampling
from tests.benchmarks.common import Figure, against, base_folder, dialogues, per_cpu_second

ROUNDS = 3
OUR_DOCUMENTS = 24
PEER_DOCUMENTS = 2
SAMPLING = Sampling(max_new_tokens=64, temperature=0.7, top_p=0.95, candidates=4)


def run() -> list[Figure]:
    """Medians of interleaved rounds, each round on other documents."""
    folder = base_folder()
    records = dialogues(ROUNDS * OUR_DOCUMENTS)
    prompts = [Prompt("You write short summaries.", f"Summarize this chat.\n\n{r.input}") for r in records]
    tokenizer = load_tokenizer(folder)
    generator = LocalGenerator(load_model(folder, torch.bfloat16), tokenizer)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ours(some: list[Prompt]) -> int:
        return sum(answer.tokens for answers in generator.generate(some, SAMPLING) for answer in answers)

    def peer(some: list[Prompt]) -> int:
        tokens = 0
        for prompt in some:
            ids = torch.tensor([chat_ids(tokenizer, prompt)])
            made = reference.generate(
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

    def speed(side: Callable[[list[Prompt]], int], number: int, documents: int) -> float:
        start = number * OUR_DOCUMENTS
        return per_cpu_second(lambda: side(prompts[start : start + documents]))

    ours(prompts[:1]), peer(prompts[:1])  # first calls choose and compile kernels
    pairs = [(speed(ours, n, OUR_DOCUMENTS), speed(peer, n, PEER_DOCUMENTS)) for n in range(ROUNDS)]
    return [against("speed_vs_generate", "tokens/CPU-s", [a for a, _ in pairs], [b for _, b in pairs])]


def _answer_length(tokens: list[int], end: int) -> int:
    """Tokens up to the first end; what follows is padding."""
    return tokens.index(end) + 1 if end in tokens else len(tokens)
