"""Mails as the texts that people wrote: `.eml` and mbox, without HTML, quoted replies and signatures.

Notable choices:
- A mail becomes `From:`, `Subject:`, an empty line and its body, the form that the shipped corpus of mails has.
- What a reply quotes is left out, what a mail forwards is kept: there it is the matter.
- A signature is what its author marked as one: the line `-- ` (RFC 3676, section 4.3), or a phone's "Sent from my".
"""

import mailbox
import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.utils import parseaddr
from pathlib import Path

from adapters.data.decoding import decode
from adapters.data.rows import Rows, Text, readable

_SIGNATURE = re.compile(r"^(?:-- ?|_{2,} ?)$|^(?:Sent from my |Sent from Outlook|Get Outlook for ).*$", re.MULTILINE)
_ENCRYPTED = {"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"}
# What mail programs put around the mail that is answered.
_QUOTES = "blockquote[type=cite], .gmail_quote, .yahoo_quoted, .protonmail_quote, #divRplyFwdMsg ~ *, #appendonsend ~ *"
_NOT_TEXT = "head, script, style, title, template, noscript, .gmail_signature, #Signature, #divRplyFwdMsg"
_BLOCKS = "p, div, tr, table, ul, ol, li, h1, h2, h3, h4, h5, h6, pre, blockquote, section, article, header, footer"
_BREAK = "\x1f"  # stands for the end of a line while white space is collapsed
_MOST_QUOTES = 50
_QUOTED_LINES = re.compile(r"^>.*\n?", re.MULTILINE)
_ESCAPED = re.compile(rb"^>(>*From )", re.MULTILINE)  # so that a line of text begins no mail


def eml_rows(path: Path) -> Rows:
    """The one mail of a file."""
    yield from _mail(1, path.read_bytes())


def mbox_rows(path: Path) -> Rows:
    """The mails of an mbox file, one at a time."""
    box = mailbox.mbox(path, create=False)
    try:
        number = 0
        for number, key in enumerate(box.iterkeys(), start=1):
            yield from _mail(number, _ESCAPED.sub(rb"\1", box.get_bytes(key)))
        if number == 0:
            with path.open("rb") as file:
                yield 1, "no mail in it: an mbox file begins with 'From '", readable(file.read(1000))
    finally:
        box.close()


def html_text(html: str) -> str:
    """What a page says: blocks on lines of their own, without scripts, styles and quoted mails."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(html)
    for node in tree.css(f"{_NOT_TEXT}, {_QUOTES}"):
        node.decompose()
    for node in tree.css("br"):
        node.replace_with(_BREAK)
    for node in tree.css(_BLOCKS):
        node.insert_before(_BREAK)
        node.insert_after(_BREAK)
    body = tree.body
    collapsed = " ".join((body.text() if body is not None else "").split(" ")).replace("\xa0", " ")
    lines = (" ".join(line.split()) for line in collapsed.split(_BREAK))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def without_quotes(text: str) -> str:
    """A mail's text without the mails that it answers."""
    from quotequail import unwrap

    for _ in range(_MOST_QUOTES):
        found = unwrap(text)
        if found is None:
            break
        above, below = found.get("text_top", ""), found.get("text_bottom", "")
        # "Original Message" stands above what is answered as well as above what is passed on.
        forwarded = found["type"] == "forward" and (not above or "forward" in text.casefold())
        parts = [above, found.get("text", "") if forwarded else "", below]
        shorter = "\n\n".join(part for part in parts if part)
        if forwarded or shorter == text:
            return shorter
        text = shorter
    return re.sub(r"\n{3,}", "\n\n", _QUOTED_LINES.sub("", text)).strip()


def without_signature(text: str) -> str:
    """A text up to its signature; all of it if nothing would be left."""
    found = _SIGNATURE.search(text)
    return text[: found.start()].rstrip() or text.strip() if found else text.strip()


def _mail(number: int, content: bytes) -> Rows:
    try:
        text = _text(content)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # The standard library's header parsers fail in all these ways on broken mails.
        yield number, str(error) if type(error) is ValueError else f"not a mail: {error}", readable(content)
    else:
        yield number, Text(text), readable(content)


def _text(content: bytes) -> str:
    message = BytesParser(policy=policy.default).parsebytes(content)
    if not any(message[name] for name in ("From", "To", "Subject", "Date")):
        raise ValueError("not a mail: it has none of the headers From, To, Subject and Date")
    if any(part.get_content_type() in _ENCRYPTED for part in message.walk()):
        raise ValueError("the mail is encrypted")
    body = without_signature(without_quotes(_body(message)))
    if not body:
        kinds = sorted({part.get_content_type() for part in message.walk() if not part.is_multipart()})
        raise ValueError(f"the mail has no text of its own; its parts: {', '.join(kinds)}")
    sender = _sender(str(message["From"] or ""))
    subject = " ".join(str(message["Subject"] or "").split())
    head = [f"{name}: {value}" for name, value in (("From", sender), ("Subject", subject)) if value]
    return "\n".join([*head, "", body]) if head else body


def _sender(header: str) -> str:
    name, address = parseaddr(header)
    return name or address


def _body(message: EmailMessage) -> str:
    """The plain text; from HTML if there is no other."""
    for part in _bodies(message):
        text = _content(part)
        if part.get_content_type() == "text/html":
            text = html_text(text)
        text = text.replace("\r\n", "\n").strip()
        if text:
            return text
    return ""


def _bodies(message: EmailMessage) -> Iterator[MIMEPart]:
    for kind in ("plain", "html"):
        part = message.get_body(preferencelist=(kind,))
        if part is not None:
            yield part


def _content(part: MIMEPart) -> str:
    """A part's text. Where its charset is unknown or wrong, the one that fits."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return payload.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):
        return decode(payload)
