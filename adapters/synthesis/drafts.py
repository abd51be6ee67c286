"""What teachers wrote: a file a day for each teacher and way of drawing, appended to as each document is done.

A file is a day's, so that its last change tells when its texts are old enough to go (audit.py). A line is the digest of
a prompt, the record that it is about, for a stack the ids of all its records, and its answers. It is on the disk before
the next one is begun, so a killed run loses the documents in flight and nothing is ever generated twice: not by a run
that goes on, nor by one with other rules of rejection.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.inference.types import Answer, Prompt, Sampling, TextGenerator
from adapters.recipe import SynthesisSection
from adapters.records import Record
from infra.canonical import digest
from infra.progress import track


@dataclass(frozen=True)
class Member:
    """A teacher of the committee: its name in the recipe, what stands for it in keys, and how it is opened."""

    name: str
    identity: str
    open: Callable[[], TextGenerator]


class Drafts:
    """The drafts in a folder; `members` are the ids of the records in each stack. Nobody else may write to the folder
    at the same time.
    """

    def __init__(self, folder: Path, members: Mapping[str, Sequence[str]] | None = None) -> None:
        self._folder = folder
        self._members = members or {}

    def candidates(
        self, member: Member, asked: Sequence[tuple[Record, Prompt]], section: SynthesisSection, label: str
    ) -> list[list[Answer]]:
        """A teacher's `section.candidates` answers to each prompt: the likeliest one, and others drawn at random."""
        likeliest = self.answers(member, asked, Sampling(section.max_new_tokens), f"{label}, likeliest")
        if section.candidates == 1:
            return likeliest
        sampling = Sampling(
            max_new_tokens=section.max_new_tokens,
            temperature=section.temperature,
            top_p=section.top_p,
            candidates=section.candidates - 1,
            seed=section.seed,
        )
        others = self.answers(member, asked, sampling, f"{label}, others")
        return [[*first, *more] for first, more in zip(likeliest, others, strict=True)]

    def answers(
        self, member: Member, asked: Sequence[tuple[Record, Prompt]], sampling: Sampling, label: str
    ) -> list[list[Answer]]:
        """A teacher's answers to each prompt, in order; it is opened only if one is missing."""
        drawn = digest([member.identity, asdict(sampling)])
        path = self._folder / f"{drawn}-{datetime.now(UTC):%Y-%m-%d}.jsonl"
        known: dict[str, list[Answer]] = {}
        for one in sorted(self._folder.glob(f"{drawn}*.jsonl")):
            known |= _read(one)
        keys = [digest(list(prompt)) for _, prompt in asked]
        first = {key: number for number, key in reversed(list(enumerate(keys)))}
        waiting = sorted(number for key, number in first.items() if key not in known)
        if waiting:
            self._folder.mkdir(parents=True, exist_ok=True)
            tokens = 0
            with path.open("a", encoding="utf-8") as file, track(label, len(first)) as step:
                step.advance(len(first) - len(waiting))

                def keep(index: int, made: list[Answer]) -> None:
                    nonlocal tokens
                    key, record = keys[waiting[index]], asked[waiting[index]][0]
                    known[key] = made
                    about = {"record": record.id, "members": self._members.get(record.id, ())}
                    row = {"prompt": key, **about, "answers": [asdict(answer) for answer in made]}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    tokens += sum(answer.tokens for answer in made)
                    step.advance(note=f"{tokens} tokens")

                member.open().generate([asked[number][1] for number in waiting], sampling, keep)
        return [known[key] for key in keys]


def _read(path: Path) -> dict[str, list[Answer]]:
    """The answers in a file by prompt; a last line that a kill cut off is dropped from it."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["prompt"]: [Answer(**answer) for answer in row["answers"]] for row in rows}
