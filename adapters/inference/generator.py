"""Text from a local model, many answers at a time.

Notable choices:
- A prompt is run once, whatever the number of its candidates; its keys and values are copied to a row for each.
- Prompts go longest first; answers of all of them are decoded side by side, a row that has ended leaves at once,
  and waiting prompts take the free rows. A later prompt is never longer, so it always fits left of the common column.
- The random numbers of an answer depend on the seed, its prompt's text and its number among the candidates alone.
  Logits may still differ in the last bit with the rows beside it, as matrix products are cut differently; the same
  call on the same machine gives the same answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from adapters.inference.cache import RowCache
from adapters.inference.chat import chat_ids
from adapters.inference.sampling import draw, uniforms
from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from infra.errors import FactoryError

_PREFILL_TOKENS = 4096


class LocalGenerator:
    """A `TextGenerator` over a causal language model of transformers, bare or with a PEFT adapter.

    `batch_tokens` bounds the cache: rows times their longest sequence. An answer's `tokens` and `logprob` count the
    token that ended it. Models whose layers see all earlier tokens are supported (no sliding windows).
    """

    def __init__(self, model: Any, tokenizer: Any, batch_tokens: int = 32768) -> None:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.decoder = causal.get_decoder()
        self.head = causal.get_output_embeddings()
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        ends = causal.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        self._context = causal.config.max_position_embeddings

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        """`sampling.candidates` answers for each prompt, in order; `on_answers` is called as each prompt is done.

        Raises:
            FactoryError: a prompt leaves no room for the answer in the model's context.
        """
        encoded = [chat_ids(self.tokenizer, prompt) for prompt in prompts]
        for number, ids in enumerate(encoded):
            if len(ids) + sampling.max_new_tokens > self._context:
                raise FactoryError(
                    f"prompt {number} has {len(ids)} tokens and its answer up to {sampling.max_new_tokens}, over the "
                    f"model's {self._context}; shorten the input"
                )
        answers: list[list[Answer]] = [[] for _ in prompts]
        waiting = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
        while waiting:
            # A cache is as wide as its longest prompt: prompts under half of that get one of their own.
            half = len(encoded[waiting[0]]) / 2
            group = [_Job(i, prompts[i], encoded[i]) for i in waiting if len(encoded[i]) > half]
            waiting = waiting[len(group) :]
            for job, done in _Decoding(self, group, sampling).run():
                answers[job.index] = done
                if on_answers is not None:
                    on_answers(job.index, done)
        return answers


@dataclass(eq=False)
class _Job:
    """A prompt, its place in the caller's list, its token ids, and its finished answers by candidate."""

    index: int
    prompt: Prompt
    ids: list[int]
    done: dict[int, Answer] = field(default_factory=dict)


@dataclass(eq=False)
class _Row:
    """An answer in the making: whose it is, the column its prompt starts in, its random numbers, what it has."""

    job: _Job
    candidate: int
    start: int
    numbers: list[float]
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0


class _Decoding:
    """Some prompts of similar length, longest first, on their way through one cache."""

    def __init__(self, engine: LocalGenerator, waiting: list[_Job], sampling: Sampling) -> None:
        self.engine = engine
        self.waiting = waiting
        self.sampling = sampling
        self.rows: list[_Row] = []
        self.cache: RowCache | None = None
        widest = len(waiting[0].ids) + sampling.max_new_tokens
        fitting = min(engine.batch_tokens // widest, len(waiting) * sampling.candidates)
        self.capacity = max(fitting, sampling.candidates)

    def run(self) -> Iterator[tuple[_Job, list[Answer]]]:
        """Each prompt with its answers, as it is done."""
        while self.waiting or self.rows:
            free = self.capacity - len(self.rows)
            # Prompts are run some at a time: a single one would use the processor badly.
            if self.waiting and free >= max(self.sampling.candidates, self.capacity // 4):
                self._admit(free // self.sampling.candidates)
            else:
                self._step()
            yield from self._finished()

    def _admit(self, count: int) -> None:
        """Run the next `count` prompts, at most as many as fit a prefill, and draw their answers' first tokens."""
        width = len(self.waiting[0].ids)
        count = max(1, min(count, len(self.waiting), _PREFILL_TOKENS // width))
        jobs, self.waiting = self.waiting[:count], self.waiting[count:]
        lengths = torch.tensor([len(job.ids) for job in jobs])
        ids = torch.zeros((count, width), dtype=torch.long)
        for number, job in enumerate(jobs):
            ids[number, : len(job.ids)] = torch.tensor(job.ids)
        device = self.engine.head.weight.device
        prefilled = DynamicCache()
        hidden = self.engine.decoder(input_ids=ids.to(device), past_key_values=prefilled, use_cache=True)
        last = hidden.last_hidden_state[torch.arange(count), lengths - 1]

        if self.cache is None:
            self.cache = RowCache(prefilled)
        if not self.rows:
            self.cache.reset(self.capacity, width)
        old = len(self.rows)
        candidates = range(self.sampling.candidates)
        for number, job in enumerate(jobs):
            self.cache.place(len(self.rows), len(candidates), prefilled, number, len(job.ids))
            start = self.cache.length - len(job.ids)
            self.rows += [_Row(job, c, start, uniforms(job.prompt, c, self.sampling)) for c in candidates]
        self._extend(self.rows[old:], last.repeat_interleave(len(candidates), dim=0))

    def _step(self) -> None:
        """One more token for each row."""
        cache = self.cache
        assert cache is not None
        if cache.length == cache.columns:
            first = min(row.start for row in self.rows)
            cache.compact(len(self.rows), first)
            for row in self.rows:
                row.start -= first
        device = self.engine.head.weight.device
        starts = torch.tensor([row.start for row in self.rows], device=device)
        tokens = torch.tensor([[row.tokens[-1]] for row in self.rows], device=device)
        hidden = self.engine.decoder(
            input_ids=tokens,
            position_ids=(cache.length - starts)[:, None],
            attention_mask=cache.mask(starts, self.engine.head.weight.dtype),
            past_key_values=cache,
            use_cache=True,
        )
        cache.advance()
        self._extend(self.rows, hidden.last_hidden_state[:, -1])

    def _extend(self, rows: list[_Row], hidden: Tensor) -> None:
        """Draw the next token of each row from its last hidden state [rows, width]."""
        logits = self.engine.head(hidden).float()
        numbers = torch.tensor([row.numbers[len(row.tokens)] for row in rows], dtype=torch.float64)
        tokens, logprobs = draw(logits, self.sampling.temperature, self.sampling.top_p, numbers.to(logits.device))
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprob += logprob

    def _finished(self) -> Iterator[tuple[_Job, list[Answer]]]:
        """Take ended rows out; the last row moves into each gap. Yields the prompts that are done with that."""
        assert self.cache is not None
        for place in reversed(range(len(self.rows))):
            row = self.rows[place]
            ended = row.tokens[-1] in self.engine.ends
            if not ended and len(row.tokens) < self.sampling.max_new_tokens:
                continue
            text = self.engine.tokenizer.decode(row.tokens, skip_special_tokens=True).strip()
            row.job.done[row.candidate] = Answer(text, len(row.tokens), row.logprob / len(row.tokens), ended)
            if len(row.job.done) == self.sampling.candidates:
                yield row.job, [row.job.done[c] for c in range(self.sampling.candidates)]
            last = self.rows.pop()
            if last is not row:
                self.cache.move(len(self.rows), place)
                self.rows[place] = last
