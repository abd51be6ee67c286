"""Broken input of every kind: told with its reason, nothing lost, nothing fatal, and what is sound beside it read."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from adapters.data.convert import convert

GOOD = b'{"input": "good"}\n'


def parquet(column: pyarrow.Array, **more: list[str]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"when" if more else "input": column, **more}), file)
    return file.getvalue()


ENDLESS_TIME = b'[{"user": "a", "text": "x", "ts": %s}, {"user": "b", "text": "y", "ts": "soon"}]' % (b"9" * 401)
LATER = pyarrow.array([0, 2**60], pyarrow.timestamp("us"))  # the second lies beyond the year 9999


def mail(body: str, kind: str = "text/plain", head: str = "From: a@example.org\nSubject: s\n") -> bytes:
    return f"{head}MIME-Version: 1.0\nContent-Type: {kind}\n\n{body}\n".encode()


ATTACHMENT = '--x\nContent-Type: application/pdf\nContent-Disposition: attachment; filename="a.pdf"\n\nJVBERi0=\n--x--'
# What is broken: the file's name, its content, the reasons (in order), and how many records are read all the same.
BROKEN: dict[str, tuple[str, bytes, list[str], int]] = {
    "truncated JSON": ("a.jsonl", GOOD + b'{"input": "cut o\n', ["not JSON: Unterminated string"], 1),
    "half an object": ("a.jsonl", b'{"input": "a",\n' + GOOD, ["not JSON: Expecting property name"], 1),
    "two objects on a line": ("a.jsonl", b'{"input": "a"}{"input": "b"}\n' + GOOD, ["not JSON: Extra data"], 1),
    "nested too deeply": ("a.jsonl", b"[" * 100_000 + b"\n" + GOOD, ["nested too deeply"], 1),
    "a list for a row": ("a.jsonl", b"[1, 2]\n" + GOOD, ["not an object but list"], 1),
    "no such field": ("a.jsonl", b'{"text": "x"}\n' + GOOD, ["no field 'input'; the row has text"], 1),
    "a number for a text": ("a.jsonl", b'{"input": 5}\n' + GOOD, ["input: Input should be a valid string"], 1),
    "not a number": ("a.jsonl", b'{"input": NaN}\n' + GOOD, ["input: Input should be a valid string"], 1),
    "null": ("a.jsonl", b'{"input": null}\n' + GOOD, ["input: Input should be a valid string"], 1),
    "a target that is an object": ("a.jsonl", b'{"input": "a", "target": {"b": 1}}\n' + GOOD, ["target."], 1),
    "a blank input": ("a.jsonl", b'{"input": "  \\t"}\n' + GOOD, ["at least 1 character"], 1),
    "bytes that are not UTF-8": ("a.jsonl", b'{"input": "caf\xe9"}\n' + GOOD, ["not UTF-8: invalid"], 1),
    "half a character": ("a.jsonl", b'{"input": "\\ud83d"}\n' + GOOD, ["surrogate"], 1),
    "half a character in a key": ("a.jsonl", b'{"\\ud83d": 1}\n' + GOOD, ["the row has \\ud83d"], 1),
    "half a character in JSON": ("a.json", b'[{"in\\ud83d": 1}, {"input": "a"}]', ["the row has in\\ud83d"], 1),
    "a line break in an id": (
        "a.jsonl",
        b'{"id": "a\\nb", "input": "a"}\n' + GOOD,
        ["id: Value error, holds a con"],
        1,
    ),
    "a control character in an id": ("a.csv", b"id,input\na\x1bb,c\nd,e\n", ["id: Value error, holds a control"], 1),
    "a zero character": ("a.jsonl", b'{"input": "a\\u0000b"}\n' + GOOD, ["zero character"], 1),
    "a key twice": ("a.jsonl", b'{"input": "a", "input": "b"}\n' + GOOD, ["key 'input' occurs twice"], 1),
    "an id twice": ("a.jsonl", b'{"id": 1, "input": "a"}\n{"id": "1", "input": "b"}\n', ["id '1' occurs twice"], 1),
    "an endless id": ("a.jsonl", b'{"id": "%s", "input": "a"}\n' % (b"x" * 500) + GOOD, ["id: String should"], 1),
    "an endless number": ("a.jsonl", b'{"id": %s, "input": "a"}\n' % (b"9" * 9000) + GOOD, ["digits"], 1),
    "a huge line": ("a.jsonl", b'{"input": "' + b"x" * 20_000_000 + b"\n" + GOOD, ["not JSON: Unterminated"], 1),
    "binary lines": ("a.jsonl", b"\x00\xff\xfe\x80\n\x1b[0m\n" + GOOD, ["not UTF-8", "not JSON"], 1),
    "no row": ("a.jsonl", b"\n\n", ["the file holds no row"], 0),
    "an empty file": ("a.csv", b"", ["the file holds no row"], 0),
    "UTF-16 cut in two": ("a.jsonl", '{"input": "a"}'.encode("utf-16")[:-1], ["not utf-16"], 0),
    "a stray column": ("a.csv", b"input,target\na,b\none,two,three\n", ["3 columns where the header has 2"], 1),
    "a missing column": ("a.csv", b"input,target\na\nb,c\n", ["1 columns where the header has 2"], 1),
    "nested quotes": ("a.csv", b'input\n"he said "hi" to me"\nb\n', ["not CSV"], 1),
    "a quote that is never closed": ("a.csv", b'input\ngood\n"never closed\nmore\n', ["not CSV"], 1),
    "a column twice": ("a.csv", b"input,input\na,b\nc,d\n", ["names column 'input' twice"] * 2, 0),
    "only a header": ("a.csv", b"input,target\n", ["the file holds no row"], 0),
    "another header": ("a.tsv", b"body\tsum\na\tb\n", ["no field 'input'; the row has body, sum"], 0),
    "a picture for a table": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", ["binary"], 0),
    "half a Parquet file": ("a.parquet", parquet(pyarrow.array(["a"]))[:-9], ["not Parquet"], 0),
    "text for Parquet": ("a.parquet", GOOD, ["not Parquet"], 0),
    "bytes in Parquet": ("a.parquet", parquet(pyarrow.array([b"\xff\xfe", b"ok"])), ["input: "], 1),
    "a time beyond the year 9999": ("a.parquet", parquet(LATER, input=["a", "b"]), ["date value out of range"], 1),
    "a day beyond all": (
        "a.parquet",
        parquet(pyarrow.array([0, 2**30], pyarrow.date32()), input=["a", "b"]),
        ["days"],
        1,
    ),
    "a time of 401 digits": ("a.json", ENDLESS_TIME, [], 1),
    "half a JSON document": ("a.json", b'[{"input": "a"}, {"inp', ["not JSON"], 0),
    "a number for a document": ("a.json", b"42", ["not an object but int"], 0),
    "a message without text": ("a.json", b'[{"user": "a", "text": "x"}, {"user": "a", "text": 1}]', ["text is int"], 1),
    "a message without sender": ("a.json", b'[{"user": "a", "text": "x"}, {"text": "y"}]', ["without sender"], 1),
    "a picture for a mail": ("a.eml", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", ["not a mail"], 0),
    "a mail of attachments": ("a.eml", mail(ATTACHMENT, "multipart/mixed; boundary=x"), ["no text of its own"], 0),
    "a mail that only quotes": ("a.eml", mail("On 1 May 2026, B <b@c.de> wrote:\n> hello\n> you"), ["no text"], 0),
    "an encrypted mail": ("a.eml", mail("--x\n\n--x--", "multipart/encrypted; boundary=x"), ["encrypted"], 0),
    "a charset that is none": ("a.eml", mail("hello", "text/plain; charset=klingon"), [], 1),
    "no mbox": ("a.mbox", b"no mail here\n", ["no mail in it"], 0),
    "a broken mail among others": (
        "a.mbox",
        b"From x\n" + mail("one") + b"\nFrom y\nno header\n\nFrom z\n" + mail("two"),
        ["not a mail"],
        2,
    ),
    "binary for a text": ("a.txt", b"\x89PNG\0\xff", ["binary"], 0),
    "an empty text": ("a.txt", b"", ["at least 1 character"], 0),
    "a page without words": ("a.html", b"<style>p{}</style><p><img></p>", ["at least 1 character"], 0),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_broken_input_is_told_with_its_reason(tmp_path: Path, case: tuple[str, bytes, list[str], int]) -> None:
    name, content, reasons, sound = case
    (tmp_path / name).write_bytes(content)
    records, refused = convert(tmp_path / name, use_case="email", source="s", license="l")
    assert len(records) == sound
    assert len(refused) == len(reasons), refused
    for row, reason in zip(refused, reasons, strict=True):
        assert reason in row.reason
        assert row.where.startswith(f"{name}:")
        (row.where + row.reason + row.row).encode()  # it can be printed and kept
    if content.strip() and reasons and "no row" not in reasons[0] and "at least" not in reasons[0]:
        assert all(row.row for row in refused), "what stood there is kept"


def test_a_foreign_file_in_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "in" / "b.xlsx").write_bytes(b"PK")
    records, refused = convert(tmp_path, use_case="email", source="s", license="l")
    assert len(records) == 1
    assert [row.where for row in refused] == ["in/b.xlsx:1"]


ENCODED: dict[str, Callable[[str], bytes]] = {
    "utf-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-32": lambda text: text.encode("utf-32"),
    "cp1252": lambda text: text.encode("cp1252"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_encodings_of_a_table_are_understood(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_bytes(ENCODED[name]("input;target\r\nUn café crème à Orléans, s’il vous plaît;café\r\n"))
    records, refused = convert(tmp_path / "a.csv", use_case="email", source="s", license="l")
    assert refused == []
    assert (records[0].input, records[0].target) == ("Un café crème à Orléans, s’il vous plaît", "café")
