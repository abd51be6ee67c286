"""The language of a text, by py3langid's model, which comes with the package."""

from functools import cache
from typing import Any

from adapters.data.ngrams import words

_FEWEST_WORDS = 8  # a shorter text is no evidence: names and numbers look like any language
_SURE = 0.9


def language_of(text: str) -> str | None:
    """The language (ISO 639-1) of a text; None if it is too short to tell, or not told surely."""
    if len(words(text)) < _FEWEST_WORDS:
        return None
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _SURE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
