"""Chat exports in JSON as conversations: one a record, `Name: text` a line.

Read by shape, so that the exports of Slack, Discord (DiscordChatExporter), Telegram and whatever else lists messages
with a sender and a text are read alike. A conversation ends after an hour of silence, or after 30 messages.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.data.rows import Rows, Text

_SENDERS = ("from", "sender", "author", "user_profile", "user", "username", "name", "role", "speaker")
_NAMES = ("real_name", "display_name", "nickname", "name", "username", "id")
_TEXTS = ("text", "content", "message", "body", "value")
_TIMES = ("ts", "timestamp", "date_unixtime", "date", "time", "created_at", "createdAt", "sent_at")
_LISTS = ("messages", "conversations", "conversation", "items", "chats", "list", "data")
_SILENCE_SECONDS = 3600
_MOST_MESSAGES = 30
_MILLISECONDS = 1e11  # a number of seconds this large would lie thousands of years ahead
# Slack's marks for people, channels and links: <@U1|name>, <#C1|name>, <https://…|label>.
_MARK = re.compile(r"<(?:[@#!]\w+\|?|https?://[^|>]*\|)([^>]*)>")


@dataclass(frozen=True)
class _Message:
    number: int
    sender: str
    text: str
    time: float | None


def is_chat(content: Any) -> bool:
    """Whether a JSON document holds messages."""
    return any(True for _ in _message_lists(content))


def chat_rows(content: Any) -> Rows:
    """The conversations of an export; a message without a text or a sender is told with its reason.

    Numbers are those of the first message, counted through the document.
    """
    number = 0
    for messages in _message_lists(content):
        conversation: list[_Message] = []
        for raw in messages:
            number += 1
            read = _message(number, raw)
            if isinstance(read, str):
                yield number, read, str(raw)
            elif read is not None:
                if conversation and _parted(conversation, read):
                    yield _row(conversation)
                    conversation = []
                conversation.append(read)
        if conversation:
            yield _row(conversation)


def _message_lists(content: Any) -> Iterator[Sequence[Any]]:
    """The lists of messages in a document, however deep they lie."""
    if isinstance(content, list):
        if any(_looks_like_message(one) for one in content):
            yield content
        else:
            for one in content:
                yield from _message_lists(one)
    elif isinstance(content, Mapping):
        for name in _LISTS:
            if name in content:
                yield from _message_lists(content[name])


def _looks_like_message(one: Any) -> bool:
    return isinstance(one, Mapping) and bool(_first(one, _SENDERS)) and any(name in one for name in _TEXTS)


def _message(number: int, raw: Any) -> _Message | str | None:
    """A message; the reason why it is none; None for what the program wrote itself (joins, calls, pins)."""
    if not isinstance(raw, Mapping):
        return f"not a message but {type(raw).__name__}"
    if raw.get("type") == "service" or raw.get("subtype") in ("channel_join", "channel_leave", "channel_topic"):
        return None
    sender = _name(_first(raw, _SENDERS))
    if not sender:
        return f"a message without sender; it has {', '.join(map(str, raw)) or 'nothing'}"
    value = next((raw[name] for name in _TEXTS if name in raw), None)
    text = _plain(value)
    if text is None:
        return f"a message whose text is {type(value).__name__}"
    return _Message(number, sender, text, _time(_first(raw, _TIMES))) if text else None


def _first(raw: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((raw[name] for name in names if raw.get(name)), None)


def _name(sender: Any) -> str:
    if isinstance(sender, Mapping):
        sender = _first(sender, _NAMES)
    return " ".join(str(sender).split()) if isinstance(sender, str | int) else ""


def _plain(value: Any) -> str | None:
    """A message's text on one line; None if it is none. Telegram's is a list of texts and of objects with one."""
    if isinstance(value, list):
        parts = [part.get("text", "") if isinstance(part, Mapping) else part for part in value]
        value = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(value, str):
        return None
    return " ".join(html.unescape(_MARK.sub(r"\1", value)).split())


def _time(value: Any) -> float | None:
    """Seconds since 1970."""
    if isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # an integer of more digits than a time has
        return None
    except (TypeError, ValueError):
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds / 1000 if seconds > _MILLISECONDS else seconds


def _parted(conversation: Sequence[_Message], following: _Message) -> bool:
    last = conversation[-1].time
    silent = last is not None and following.time is not None and abs(following.time - last) > _SILENCE_SECONDS
    return silent or len(conversation) >= _MOST_MESSAGES


def _row(conversation: Sequence[_Message]) -> tuple[int, Text, str]:
    text = "\n".join(f"{message.sender}: {message.text}" for message in conversation)
    return conversation[0].number, Text(text), text
