"""The texts that suites test with: evaluation sets like any other, which nothing is to be trained on."""

from collections.abc import Iterator

from adapters.data.convert import strings_in
from adapters.evaluation.suites.suite import Files, read_rows, read_texts

# Words that answers are searched for: they stand in any text, and are no questions.
_NO_QUESTIONS = ("terms",)


def suite_texts(files: Files) -> Iterator[tuple[str, str]]:
    """Every text in the files of a suite, with the place where it stands.

    Raises:
        FactoryError: a file is not what the suite needs.
    """
    for kind, path in files.items():
        if kind in _NO_QUESTIONS:
            continue
        if kind == "text":
            yield path.name, path.read_text("utf-8")
        elif kind == "attacks":
            yield from ((path.name, text) for text in read_texts(path))
        else:
            rows = enumerate(read_rows(path, ()), start=1)
            yield from ((f"{path.name}, row {number}", text) for number, row in rows for text in strings_in(row))
