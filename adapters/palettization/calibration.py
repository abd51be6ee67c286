"""The calibration windows of a base: a frozen text, and what the base itself writes to frozen prompts.

Its own samples cost no outside data and cover more of what it knows than a file that is read by people can (as in
LLM-QAT, Liu et al. 2023, arXiv:2305.17888). No feature's data is in here, so a changed record never changes the base.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.inference.chat import answer_ids, chat_ids
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Prompt, Sampling
from adapters.palettization.recipe import CalibrationSection
from adapters.palettization.text import read_lines
from infra.errors import FactoryError
from infra.progress import track

CALIBRATION = "calibration.safetensors"
_SYSTEM = "You are a helpful assistant."
_ANSWER_TOKENS = 192


def write_calibration(base: Path, section: CalibrationSection, output: Path, dtype: torch.dtype, device: str) -> None:
    """Write the windows, int32 [windows, window] in random order, so that any first part is a mixture.

    Raises:
        FactoryError: the tokenizer makes too few tokens of the frozen text.
    """
    tokenizer = load_tokenizer(base)
    windows = section.text.windows(tokenizer)
    if section.sampled_tokens:
        own = _own_text(load_model(base, dtype, device), tokenizer, section)
        count = min(len(own), section.sampled_tokens) // section.text.window
        windows = torch.cat([windows, own[: count * section.text.window].view(count, -1)])
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(section.seed))
    save_file({"windows": windows[order].to(torch.int32)}, output / CALIBRATION)


def read_calibration(folder: Path, tokens: int) -> Tensor:
    """The first windows, at most `tokens` tokens in all: int64 [windows, window].

    Raises:
        FactoryError: that is less than one window.
    """
    windows: Tensor = load_file(folder / CALIBRATION)["windows"].long()
    count = tokens // windows.shape[1]
    if count == 0:
        raise FactoryError(f"{tokens} tokens are less than one window of {windows.shape[1]}; raise them in the recipe")
    return windows[:count]


def _own_text(model: Any, tokenizer: Any, section: CalibrationSection) -> Tensor:
    """Token ids of prompts with their sampled answers, one after the other."""
    prompts = [Prompt(_SYSTEM, line) for line in read_lines(section.prompts)]
    # The budget, spread over the prompts; an answer that ends early leaves some over for the next round's candidates.
    candidates = -(-section.sampled_tokens * 3 // (2 * len(prompts) * _ANSWER_TOKENS))
    sampling = Sampling(_ANSWER_TOKENS, temperature=1.0, candidates=candidates, seed=section.seed)
    with track("calibration: the base's own text", len(prompts)) as step:
        answers = LocalGenerator(model, tokenizer).generate(prompts, sampling, lambda index, done: step.advance())
    ids: list[int] = []
    for candidate in range(candidates):
        for prompt, some in zip(prompts, answers, strict=True):
            ids += chat_ids(tokenizer, prompt) + answer_ids(tokenizer, some[candidate].text)
    return torch.tensor(ids)
