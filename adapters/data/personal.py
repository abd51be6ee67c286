"""Personal data in texts: found by pattern and, where numbers carry one, by checksum; replaced by placeholders.

Notable choices:
- A placeholder (`[EMAIL_1]`) stands for one value within one record: the same value in input and target gets the same
  one, so that a summary still points to what its source says.
- A number counts only if it is valid: cards by Luhn and length, IBANs and national ids by python-stdnum, phone numbers
  by the plans that `phonenumbers` knows. An order number or a time is left alone.
- Names are replaced on request only, and only those that a record's own form gives (people.py).
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import chain

from adapters.data.people import people
from adapters.recipe import PATTERNED
from adapters.recipe import PersonalKind as Kind

# In the order in which they are looked for: what one kind has taken, no later one takes.
KINDS: tuple[Kind, ...] = PATTERNED

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[^\W_][\w-]*(?:\.[\w-]*[^\W_])+")
_URL = re.compile(
    r"""(?:(?:https?|ftp)://|www\.)[^\s<>"'\])}]+"""
    r"""|(?<![\w@.-])(?:[a-z0-9][a-z0-9-]*\.)+(?:com|org|net|edu|gov|info|io)(?![\w-])(?:/[^\s<>"'\])}]*)?""",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(r"(?<![\w.-])[2-6]\d{3}(?:[ -]?\d){8,14}\d(?![\w-]|\.\d)")
_IP = re.compile(
    r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7})(?![\w:]|\.\d)", re.IGNORECASE
)
# What has numbers that look like an address: section 9.4.10.1.
_NUMBERED = re.compile(r"\b(?:sections?|sect?|chapter|clause|part|version|release|v)\.?\s*$|§\s*$", re.IGNORECASE)
# Enough digits for a telephone number: `phonenumbers` is slow, and most texts have none.
_PHONE = re.compile(r"\d(?:[\s()./+-]{0,3}\d){6,}")
# Number of the person by the module of python-stdnum that checks it, in the form in which people write it.
_NATIONAL_IDS = {
    "be.nn": r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}",
    "br.cpf": r"\d{3}\.\d{3}\.\d{3}-\d{2}",
    "ca.sin": r"\d{3}[ -]\d{3}[ -]\d{3}",
    "ch.ssn": r"756\.\d{4}\.\d{4}\.\d{2}",
    "cz.rc": r"\d{6}/\d{3,4}",
    "de.idnr": r"\d{2} \d{3} \d{3} \d{3}",
    "dk.cpr": r"\d{6}-\d{4}",
    "es.dni": r"\d{8}-?[A-Z]",
    "es.nie": r"[XYZ]-?\d{7}-?[A-Z]",
    "fi.hetu": r"\d{6}[-+A]\d{3}[0-9A-Y]",
    "fr.nir": r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}",
    "in_.aadhaar": r"\d{4} \d{4} \d{4}",
    "it.codicefiscale": r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]",
    "pl.pesel": r"\d{11}",
    "se.personnummer": r"(?:\d{2})?\d{6}[-+]\d{4}",
    "us.ssn": r"\d{3}-\d{2}-\d{4}",
}


@dataclass(frozen=True)
class Found:
    """A piece of a text that is personal: where it stands, of which kind it is, and the value, written one way."""

    start: int
    end: int
    kind: Kind
    value: str


def find_personal(
    text: str, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = (), names: Mapping[str, str] | None = None
) -> list[Found]:
    """What is personal in a text, in its order. `regions` (ISO 3166) are those whose national phone numbers count;
    numbers with a country code always do. `names` are forms of people's names and whose they are.
    """
    looked_for = [
        _phones(text, regions) if kind == "phone" else _FINDERS[kind](text) for kind in KINDS if kind in kinds
    ]
    taken: list[Found] = []
    for found in chain(*looked_for, _named(text, names or {})):
        if all(found.end <= other.start or found.start >= other.end for other in taken):
            taken.append(found)
    return sorted(taken, key=lambda found: found.start)


def replace_personal(
    texts: Sequence[str], kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = ()
) -> tuple[list[str], Counter[str]]:
    """The texts of one record with placeholders, and how often each kind was replaced in them."""
    known = people(texts) if "name" in kinds else {}
    placeholders: dict[tuple[str, str], str] = {}
    numbers: Counter[str] = Counter()
    replaced: Counter[str] = Counter()
    changed = []
    for text in texts:
        parts, end = [], 0
        for found in find_personal(text, kinds, regions, known):
            key = (found.kind, found.value)
            if key not in placeholders:
                numbers[found.kind] += 1
                placeholders[key] = f"[{found.kind.upper()}_{numbers[found.kind]}]"
            parts += [text[end : found.start], placeholders[key]]
            end = found.end
            replaced[found.kind] += 1
        changed.append("".join([*parts, text[end:]]))
    return changed, replaced


def _named(text: str, names: Mapping[str, str]) -> Iterator[Found]:
    if names:
        forms = "|".join(re.escape(form) for form in sorted(names, key=len, reverse=True))
        for match in re.finditer(rf"(?<!\w)(?:{forms})(?!\w)", text):
            yield Found(match.start(), match.end(), "name", names[match[0]])


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Found(match.start(), match.end(), "email", match[0].casefold())


def _urls(text: str) -> Iterator[Found]:
    for match in _URL.finditer(text):
        value = match[0].rstrip(".,;:!?*_~'\"")
        yield Found(match.start(), match.start() + len(value), "url", value)


def _ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        value = match[0]
        while len(value) > 14 and not _valid("iban", value):
            value = value.rpartition(" ")[0]  # the last group may be a word that follows
        if len(value) > 14:
            yield Found(match.start(), match.start() + len(value), "iban", value.replace(" ", ""))


def _cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _valid("luhn", digits):
            yield Found(match.start(), match.end(), "card", digits)


def _national_ids(text: str) -> Iterator[Found]:
    for match in _national_id_pattern().finditer(text):
        value = match[0]
        for module, pattern in _NATIONAL_IDS.items():
            if re.fullmatch(pattern, value) and _valid(module, value):
                yield Found(match.start(), match.end(), "national_id", re.sub(r"[\s./-]", "", value))
                break


def _ips(text: str) -> Iterator[Found]:
    for match in _IP.finditer(text):
        if _NUMBERED.search(text, max(0, match.start() - 12), match.start()):
            continue
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if not address.is_unspecified and not address.is_loopback:
            yield Found(match.start(), match.end(), "ip", str(address))


def _phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    if _PHONE.search(text) is None:
        return
    from phonenumbers import Leniency, PhoneNumberFormat, PhoneNumberMatcher, format_number

    seen: set[int] = set()
    for region in (None, *regions):
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            # A parcel's number goes on before it: FDX-2024-908765.
            whole = match.start == 0 or not re.match(r"[\w-]", text[match.start - 1])
            if whole and match.start not in seen:
                seen.add(match.start)
                opened = match.raw_string.startswith("(") and ")" not in match.raw_string  # a bracket of the sentence
                yield Found(
                    match.start + opened, match.end, "phone", format_number(match.number, PhoneNumberFormat.E164)
                )


_FINDERS: dict[Kind, Callable[[str], Iterator[Found]]] = {
    "email": _emails,
    "url": _urls,
    "iban": _ibans,
    "card": _cards,
    "national_id": _national_ids,
    "ip": _ips,
}


@cache
def _national_id_pattern() -> re.Pattern[str]:
    # The longest form first: alternatives are tried in order.
    forms = sorted(_NATIONAL_IDS.values(), key=len, reverse=True)
    return re.compile(rf"(?<![\w.,/-])(?:{'|'.join(forms)})(?![\w-]|[.,/]\d)")


def _valid(module: str, value: str) -> bool:
    return bool(import_module(f"stdnum.{module}").is_valid(value))
