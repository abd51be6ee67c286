"""Real texts that neither calibration nor recovery has seen, for benchmarks: `shared/data` beside the checkout."""

import json
from typing import Any

import torch
from torch import Tensor

from infra.errors import FactoryError
from tests.benchmarks.common import ROOT

DATA = ROOT.parent / "shared" / "data"
_LONGEST = 1024


def rows(name: str) -> list[dict[str, Any]]:
    """The records of a file below `shared/data`.

    Raises:
        FactoryError: it is not there.
    """
    path = DATA / name
    if not path.is_file():
        raise FactoryError(f"{path}: no such file; this benchmark reads the texts of shared/data beside the checkout")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def quality_texts(tokenizer: Any, tokens: int) -> dict[str, list[Tensor]]:
    """Documents as token ids [1, length] by kind, about `tokens` in each: mail, chat, and encyclopedic sentences.

    A document is read whole, as a device reads it, up to 1,024 tokens.
    """
    mail = [
        "\n\n".join(f"From: {m['from']}\nSubject: {m['subject']}\n\n{m['text']}" for m in row["messages"])
        for row in rows("summarization/email_threads.val.jsonl")
    ]
    chat = [row["dialogue"] for row in rows("summarization/messages.train.jsonl")]
    sentences = [row["text"] for row in rows("writing/concise.train.jsonl")]
    other = [" ".join(sentences[begin : begin + 8]) for begin in range(0, len(sentences), 8)]
    return {
        name: _documents(tokenizer, texts, tokens)
        for name, texts in (("mail", mail), ("chat", chat), ("sentences", other))
    }


def _documents(tokenizer: Any, texts: list[str], tokens: int) -> list[Tensor]:
    documents: list[Tensor] = []
    for text in texts:
        if sum(ids.numel() for ids in documents) >= tokens:
            break
        documents.append(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"][:_LONGEST]]))
    return documents
