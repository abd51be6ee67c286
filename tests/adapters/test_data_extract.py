"""Mails, chats, pages and Parquet become the texts that people wrote."""

import json
import mailbox
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from adapters.data.convert import convert
from adapters.data.mail import html_text, without_quotes, without_signature
from adapters.records import Quarantined, Record


def read(path: Path, **fields: Any) -> tuple[list[Record], list[Quarantined]]:
    return convert(path, use_case="email", source="s", license="l", **fields)


def inputs(path: Path, **fields: Any) -> list[str]:
    records, refused = read(path, **fields)
    assert refused == []
    return [record.input for record in records]


def mail(text: str, html: str | None = None, **headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {"From": "Ann Lee <ann@example.org>", "Subject": "Gate code"}.items():
        message[name] = headers.get(name, value)
    if text:
        message.set_content(text)
    if html is not None:
        (message.add_alternative if text else message.set_content)(html, subtype="html")
    return message


def test_a_mail_is_who_what_and_the_body_alone(tmp_path: Path) -> None:
    body = "The code is 4711.\n\nSee you\n-- \nAnn Lee\nExample Ltd\n"
    quoted = "\nOn Mon, 2 Mar 2026 at 10:01, Bo Berg <bo@example.org> wrote:\n> What is the code?\n>\n> Bo\n"
    (tmp_path / "a.eml").write_bytes(mail(body + quoted, Subject="Ré: gate").as_bytes())
    assert inputs(tmp_path / "a.eml") == ["From: Ann Lee\nSubject: Ré: gate\n\nThe code is 4711.\n\nSee you"]


def test_the_input_field_is_about_tables(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(mail("Hello there").as_bytes())
    assert inputs(tmp_path / "a.eml", input_field="body") == ["From: Ann Lee\nSubject: Gate code\n\nHello there"]


def test_html_is_read_where_there_is_no_text(tmp_path: Path) -> None:
    html = (
        "<html><head><style>p {color: red}</style></head><body><p>Dear&nbsp;Bo,</p><p>the <b>code</b><br>is 4711.</p>"
        "<div class='gmail_quote'>On Monday Bo wrote:<blockquote>What is it?</blockquote></div></body></html>"
    )
    (tmp_path / "a.eml").write_bytes(mail("", html).as_bytes())
    (text,) = inputs(tmp_path / "a.eml")
    assert text.endswith("Dear Bo,\n\nthe code\nis 4711.")


def test_an_mbox_is_read_mail_by_mail(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "in.mbox")
    for number in range(3):
        box.add(mail(f"Mail number {number}.\nFrom now on it is cold."))
    box.close()
    texts = inputs(tmp_path / "in.mbox")
    assert [text.split("\n\n")[1] for text in texts] == [
        f"Mail number {number}.\nFrom now on it is cold." for number in range(3)
    ]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Yes.\n\n-----Original Message-----\nFrom: Bo\nSent: Monday\nSubject: code\n\nWhat is it?", "Yes."),
        ("> What is it?\n\n4711\n\n> And the other?\n\n4712", "4711\n\n4712"),
        ("Am 2. März 2026 um 10:01 schrieb Bo <bo@example.org>:\n> Was ist es?\n\n4711", "4711"),
        ("No quote in here: a > b, and x wrote: nothing.", "No quote in here: a > b, and x wrote: nothing."),
    ],
)
def test_quotes_are_left_out(text: str, left: str) -> None:
    assert without_quotes(text) == left


def test_what_is_forwarded_is_kept() -> None:
    text = "See below.\n\nBegin forwarded message:\n\n> From: Bo <bo@c.de>\n> Subject: code\n>\n> The code is 4711."
    assert without_quotes(text) == "See below.\n\nThe code is 4711."


def test_signatures_are_left_out() -> None:
    assert without_signature("Hello\n-- \nAnn\nExample Ltd") == "Hello"
    assert without_signature("Hello\n\nSent from my phone") == "Hello"
    assert without_signature("- one\n- two -- three\n--- four") == "- one\n- two -- three\n--- four"


def test_pages_keep_their_lines() -> None:
    page = "<title>x</title><h1>A  list</h1><ul><li>one</li><li>two &amp; three</li></ul><script>var a;</script>"
    assert [line for line in html_text(page).splitlines() if line] == ["A list", "one", "two & three"]


SLACK = [
    {"type": "message", "subtype": "channel_join", "user": "U1", "text": "<@U1> has joined", "ts": "1770000000.1"},
    {"type": "message", "user": "U1", "user_profile": {"real_name": "Ann"}, "text": "a &lt; b?", "ts": "1770000001.1"},
    {"type": "message", "user": "U2", "text": "see <https://example.org|the page>", "ts": "1770000060.2"},
    {"type": "message", "user": "U2", "text": "next day", "ts": "1770090000.2"},
]
DISCORD = {
    "guild": {"name": "g"},
    "messages": [
        {"author": {"name": "ann", "nickname": "Ann"}, "content": "hi", "timestamp": "2026-03-02T10:00:00+00:00"},
        {"author": {"name": "bo"}, "content": "hello\nyou", "timestamp": "2026-03-02T10:01:00+00:00"},
    ],
}
TELEGRAM = {
    "name": "Ann",
    "messages": [
        {"type": "service", "actor": "Ann", "action": "phone_call", "text": ""},
        {
            "type": "message",
            "from": "Ann",
            "date": "2026-03-02T10:00:00",
            "text": ["go to ", {"type": "link", "text": "x"}],
        },
    ],
}
SHARED = [{"conversations": [{"from": "human", "value": "hi"}]}, {"conversations": [{"from": "gpt", "value": "yes"}]}]


@pytest.mark.parametrize(
    ("document", "conversations"),
    [
        (SLACK, ["Ann: a < b?\nU2: see the page", "U2: next day"]),
        (DISCORD, ["Ann: hi\nbo: hello you"]),
        (TELEGRAM, ["Ann: go to x"]),
        (SHARED, ["human: hi", "gpt: yes"]),
    ],
)
def test_chats_become_conversations(tmp_path: Path, document: Any, conversations: list[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert inputs(tmp_path / "a.json") == conversations


def test_json_rows_are_no_chat(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"input": "a", "target": "b"}, {"input": "c"}]))
    records, _ = read(tmp_path / "a.json")
    assert [(record.input, record.target) for record in records] == [("a", "b"), ("c", None)]


def test_parquet_rows(tmp_path: Path) -> None:
    table = pyarrow.table({"body": ["one", "two"], "target": [["a", "b"], None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    records, refused = read(tmp_path / "a.parquet", input_field="body")
    assert refused == []
    assert [(record.input, record.target) for record in records] == [("one", ["a", "b"]), ("two", None)]
