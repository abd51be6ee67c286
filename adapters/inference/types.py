"""What goes into a text generator and what comes out: the contract between teachers, tests and the engines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Prompt(NamedTuple):
    """A chat of one system and one user message; the engine applies the model's chat template."""

    system: str
    user: str


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Temperature 0 is greedy; `candidates` answers are drawn for each prompt."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    candidates: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One generated text, its length in tokens, mean log-probability per token, and whether it ended by itself."""

    text: str
    tokens: int
    logprob: float
    finished: bool


OnAnswers = Callable[[int, list[Answer]], None]


class TextGenerator(Protocol):
    """An engine: a local model or an OpenAI-compatible endpoint."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        """Answers for each prompt, in order; `on_answers(index, answers)` is called as each prompt is done."""
        ...
