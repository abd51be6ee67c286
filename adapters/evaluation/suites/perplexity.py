"""Perplexity on a text of the user's: what a feature's adapter does to the base's sense of language."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from infra.errors import FactoryError

_WINDOW = 256
_WINDOWS_PER_PASS = 4


@torch.inference_mode()
def perplexity(model: Any, tokenizer: Any, text: Path, windows: int) -> dict[str, float]:
    """Perplexity per token over at most `windows` windows of 256 tokens, from the beginning; each stands alone.

    Raises:
        FactoryError: the text is shorter than a window.
    """
    ids = tokenizer(text.read_text("utf-8"), add_special_tokens=False)["input_ids"]
    count = min(len(ids) // _WINDOW, windows)
    if count == 0:
        raise FactoryError(f"{text} has {len(ids)} tokens, less than one window of {_WINDOW}; name a longer text")
    rows = torch.tensor(ids[: count * _WINDOW]).view(count, _WINDOW)
    loss = 0.0
    for batch in rows.to(model.device).split(_WINDOWS_PER_PASS):
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        loss += F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    tokens = count * (_WINDOW - 1)
    return {"perplexity": math.exp(loss / tokens), "tokens": float(tokens)}
