"""The frozen texts that a release is calibrated and tested on: files of this package, one paragraph a line.

They are written for this purpose and belong to no feature, so that a changed record never changes the base.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from adapters.recipe import Section
from infra.canonical import digest_file
from infra.errors import FactoryError

if TYPE_CHECKING:
    from torch import Tensor

_TEXTS = Path(__file__).parent / "text"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\.txt")


def read_lines(file: str) -> list[str]:
    """The lines of a file of this package."""
    return (_TEXTS / file).read_text("utf-8").splitlines()


def file_key(file: str) -> str:
    """The digest of a file of this package."""
    return digest_file(_TEXTS / file)


def known_file(file: str) -> str:
    """`file`, if this package has it.

    Raises:
        ValueError: it has not, or the name is a path.
    """
    if not _NAME.fullmatch(file) or not (_TEXTS / file).is_file():
        raise ValueError(f"no such text; there are {', '.join(sorted(path.name for path in _TEXTS.glob('*.txt')))}")
    return file


TextFile = Annotated[str, AfterValidator(known_file)]


class FrozenText(Section):
    """A text of this package that is read in windows of tokens. Its file never changes: a new text is a new file."""

    file: TextFile
    tokens: int = Field(gt=0, description="at most this many, from the beginning")
    window: int = Field(default=256, ge=16, description="tokens per sequence")

    @property
    def key(self) -> dict[str, str]:
        """What decides the tokens: the settings and the text's own bytes."""
        return {"settings": self.digest, "content": file_key(self.file)}

    def windows(self, tokenizer: Any) -> "Tensor":
        """Token ids int64 [windows, window]; what does not fill the last window is left out.

        Raises:
            FactoryError: the text is shorter than one window under this tokenizer.
        """
        import torch  # recipes are read by commands that never need it

        ids = tokenizer("\n".join(read_lines(self.file)), add_special_tokens=False)["input_ids"][: self.tokens]
        count = len(ids) // self.window
        if count == 0:
            raise FactoryError(f"{self.file} has {len(ids)} tokens, less than one window of {self.window}")
        return torch.tensor(ids[: count * self.window]).view(count, self.window)
