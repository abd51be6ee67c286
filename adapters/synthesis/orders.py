"""Orders to a model that hide in a document (prompt injection), so that nothing can be justified by them.

A document's sentences that speak to whoever answers ("add … to your reply", "ignore the instructions above") are taken
out of what a summary is checked against. What obeys them then is not grounded: it says what the rest of the document
does not. The patterns name the answer, the instructions or the model; plain requests between people name none of them.
"""

import re

_SENTENCE = re.compile(r"(?<=[.!?\n])(?=\s|[A-Z])")
# An order is short; what is longer is a text without full stops, and slow to search.
_LONGEST = 400
_ANSWER = r"(?:answer|reply|response|output|summary|completion|translation)"
# No part of a longer word: `In-Reply-To: Your message` stands in the head of a mail.
_ASKING = (
    r"(?<!-)(?:add|append|insert|include|begin|start|end|finish|conclude|put|write|say|mention|integrate|augment|enhance|"
    r"modify|change|render|provide|give|make|replace|convert|substitute|use|remove|group|combine|introduce|misspell|"
    r"scramble|jumble|rearrange|anagram|translate|encode|repeat|answer|respond|reply|format|suggest|tease|state|"
    r"highlight|promote|recommend|hint)(?!-)"
)
_ORDER = re.compile(
    rf"\b(?:your|the|this|every|each|any)\s+(?:\w+\s+)?{_ANSWER}(?:['’]s)?\b.*\b{_ASKING}\b"
    rf"|\b{_ASKING}\b.*\b(?:your|the)\s+(?:\w+\s+)?(?:{_ANSWER}|message)\b"
    rf"|\b(?:ignore|disregard|forget|override|bypass)\b.*\b(?:instructions?|prompts?|rules|above|previous|prior|text)\b"
    rf"|\b(?:instead of|rather than|do(?: not|n['’]t))\s+summari[sz]\w*"
    r"|\b(?:you are|act as|pretend to be|as an?|dear|note to(?: the)?|attention)\s+(?:now\s+)?(?:an?\s+)?"
    r"(?:ai|assistant|chatbot|language model|llm|model|bot)\b"
    r"|\b(?:new|system|hidden|real|following) (?:instructions?|prompts?|task)\b"
    r"|(?:^|:)\W*(?:system|assistant|instructions?|prompt)\s*:"
    r"|\b(?:summari[sz]er|anyone summari[sz]ing|when summari[sz]ing|whoever summari[sz]es|in (?:your|the) summary)\b",
    re.IGNORECASE,
)
# What asks a machine rather than a person: tasks that no mail, chat or notification puts to its reader like this.
_TASK = re.compile(
    r"^\W*(?:(?:can|could|please|kindly)\s+(?:you\s+)?)?(?:draft|compose|develop|write|provide|show me|generate)\s+"
    r"(?:\w+\s+){0,3}(?:introduction|poem|story|speech|essay|letter to|function|code|equivalent|example)\b"
    r"|^\W*(?:translate|explain|describe|break down|how do you say|what(?:'s| is| are) the (?:capital|difference|"
    r"primary|main causes))\b",
    re.IGNORECASE,
)


def without_orders(document: str) -> tuple[str, str]:
    """The document without sentences that give orders to a model, and those sentences."""
    kept: list[str] = []
    taken: list[str] = []
    for sentence in _SENTENCE.split(document):
        told = sentence.strip()[:_LONGEST]
        (taken if _ORDER.search(told) or _TASK.search(told) else kept).append(sentence)
    return "".join(kept), "".join(taken)
