"""What teachers wrote: one file for each teacher and way of drawing, appended to as each document is done.

A line is the digest of a prompt, the ids of the record that it is about, and its answers. It is on the disk before the
next one is begun, so a killed run loses the documents in flight and nothing is ever generated twice: not by a run that
goes on, nor by one with other rules of rejection.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    """The drafts in a folder. Nobody else may write to it at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        drawn = [member.identity, asdict(sampling)]
        path = self._folder / f"{digest(drawn)}.jsonl"
        known = _read(path)
        keys = [digest(list(prompt)) for _, prompt in asked]
        waiting = list(dict.fromkeys(number for number, key in enumerate(keys) if key not in known))
        if waiting:
            self._folder.mkdir(parents=True, exist_ok=True)
            tokens = 0
            with path.open("a", encoding="utf-8") as file, track(label, len(asked)) as step:
                step.advance(len(asked) - len(waiting))

                def keep(index: int, made: list[Answer]) -> None:
                    nonlocal tokens
                    key, record = keys[waiting[index]], asked[waiting[index]][0]
                    known[key] = made
                    row = {"prompt": key, "record": record.id, "answers": [asdict(answer) for answer in made]}
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    tokens += sum(answer.tokens for answer in made)
                    step.advance(note=f"{tokens} tokens")

                member.open().generate([asked[number][1] for number in waiting], sampling, keep)
        return [known[key] for key in keys]


def _read(path: Path) -> dict[str, list[Answer]]:
    """The answers in a file by prompt; a last line that a kill cut off is dropped from it."""
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["prompt"]: [Answer(**answer) for answer in row["answers"]] for row in rows}
