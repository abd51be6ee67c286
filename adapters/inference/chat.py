"""Chats as token ids: the one place that applies the model's chat template."""

from typing import Any

from adapters.inference.types import Prompt


def chat_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a chat that end where the assistant's answer begins. An empty system message is left out."""
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages.append({"role": "user", "content": prompt.user})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an assistant's answer, ended by the token that ends the model's turn."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
