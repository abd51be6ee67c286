"""Bytes as text, whatever program wrote them."""

import codecs

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SHORT = 64  # bytes: too few to guess an encoding from


def marked_encoding(content: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning tells, None without one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), None)


def decode(content: bytes) -> str:
    """The text in `content`: as its byte order mark says, else UTF-8, else the encoding that fits best.

    Raises:
        ValueError: it is no text.
    """
    marked = marked_encoding(content)
    if marked is not None:
        try:
            return content.decode(marked)
        except UnicodeDecodeError as error:
            raise ValueError(f"not {marked}, which its byte order mark tells: {error.reason}") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in content:
            raise ValueError("binary: not UTF-8, and it holds zero bytes") from None
        guessed = None if len(content) < _SHORT else _guessed(content)
        if guessed is not None:
            return guessed
        try:
            return content.decode("cp1252")  # what a text that is not UTF-8 most often is
        except UnicodeDecodeError:
            raise ValueError(f"text in no known encoding: {error.reason} at byte {error.start}") from None


def _guessed(content: bytes) -> str | None:
    from charset_normalizer import from_bytes

    best = from_bytes(content).best()
    return None if best is None else str(best)
