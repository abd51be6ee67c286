"""What teachers are told: several phrasings for each task, use case and tone, one to a document.

The recipe's own prompts are for the adapter. These are words that SmolLM2 was tuned with (the parts smol-summarize and
smol-rewrite of SmolTalk), in variations that any larger model understands as well. In a small trial (12 documents, 4
candidates, temperature 0.7, one seed) 6 documents had a survivor, against 1 with the recipe's prompts and rules about
length, and 2 with such rules added to these words.
"""

from adapters.inference.types import Prompt
from adapters.recipe import Recipe
from adapters.records import Record, text_digest

_KEY_POINT = (
    "Extract and present the main key point of the input text in one very short sentence, including essential details "
    "like dates or locations if necessary."
)
_SUMMARIES = {
    "email": (
        _KEY_POINT,
        "Extract and present what the input email asks for or announces in one very short sentence, including "
        "essential details like dates or locations if necessary.",
    ),
    "messages": (
        _KEY_POINT,
        "Extract and present what the people in the input text agree on in one very short sentence, including "
        "essential details like names, dates or locations.",
    ),
    "notifications": (
        _KEY_POINT,
        "Extract and present the latest state of affairs in the input notifications in one very short sentence, "
        "including essential details like times or places.",
    ),
}
_REWRITING = "You're an AI assistant for text re-writing. Rewrite the input text to make it "
_TONES = {
    "concise": ("more concise while preserving its core meaning.", "shorter without losing any fact."),
    "friendly": (
        "more friendly and approachable while maintaining its main points.",
        "warm and polite while keeping what it says.",
    ),
    "professional": (
        "more professional and formal while retaining its essential content.",
        "suitable for a business email while keeping every fact.",
    ),
}
_FAITHFUL = ("correct and fluent while maintaining its main points.",)
_LABELS = (
    "Choose the label that fits the input text and give a short reason taken from it. The labels are {labels}. {asked} "
    "Answer in the form: label: reason",
)


def phrasings(recipe: Recipe, use_case: str) -> tuple[str, ...]:
    """The system messages that a use case's documents are put under, in turn."""
    section = recipe.synthesis
    if section is not None and section.instructions.get(use_case):
        return tuple(section.instructions[use_case])
    task = recipe.task(use_case)
    if task == "rewrite":
        return tuple(_REWRITING + wish for wish in _TONES.get(use_case, _FAITHFUL))
    if task == "classify":
        asked = recipe.data.use_cases[use_case].ask("").strip()
        return tuple(one.format(labels=", ".join(recipe.data.labels or ()), asked=asked) for one in _LABELS)
    return _SUMMARIES.get(use_case, (_KEY_POINT,))


def teaching_prompt(recipe: Recipe, document: Record) -> tuple[Prompt, int]:
    """What teachers are asked about a document, and the number of the phrasing, which its text decides."""
    known = phrasings(recipe, document.use_case)
    chosen = int(text_digest(document.input)[:8], 16) % len(known)
    return Prompt(known[chosen], document.input), chosen
