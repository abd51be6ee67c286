"""Train the quality model: good texts against the same texts, damaged on purpose.

As for published filters, what is good is told by example. The kinds of damage that are kept for the test are of other
kinds than those trained on, so the score says what the model makes of damage that nobody thought of.
"""

import base64
import random
import string
from collections.abc import Callable, Sequence

import numpy

from adapters.data.quality import QualityModel, familiar_counts, features
from infra.canonical import digest

Damage = Callable[[str, random.Random], str]
_HELD_OUT_SHARE = 0.25
_FOLDS = 5
_MENU = (
    "Home About Contact Login Register Search Help Privacy Terms Cookies Next Previous Share Print Menu Sitemap".split()
)


def _shuffled(text: str, chance: random.Random) -> str:
    words = text.split()
    return " ".join(chance.sample(words, len(words)))


def _noisy(text: str, chance: random.Random) -> str:
    return "".join(
        chance.choice(string.ascii_letters + string.punctuation) if chance.random() < 0.15 else one for one in text
    )


def _repeated(text: str, chance: random.Random) -> str:
    words = text.split()
    start = chance.randrange(len(words))
    return " ".join(words[start : start + chance.randint(2, 6)] * chance.randint(4, 12))


def _marked_up(text: str, chance: random.Random) -> str:
    tags = ("<div class='{}'>", "</span>", "<td id={}>", "</a><br/>", "{{{{{}}}}}")
    words = (chance.choice(tags).format(word) + word if chance.random() < 0.3 else word for word in text.split())
    return "".join(words)


def _menu(text: str, chance: random.Random) -> str:
    return " | ".join(chance.choices(_MENU, k=chance.randint(8, 30))) + " " + " ".join(text.split()[:4])


def _encoded(text: str, chance: random.Random) -> str:
    return base64.b64encode(text.encode()).decode()[: chance.randint(60, 400)]


def _glued(text: str, chance: random.Random) -> str:
    return "".join(word + ("" if chance.random() < 0.7 else " ") for word in text.split())


def _table(text: str, chance: random.Random) -> str:
    rows = (";".join(str(chance.randint(0, 99999)) for _ in range(6)) for _ in range(chance.randint(3, 9)))
    return f"{' '.join(text.split()[:3])}\n" + "\n".join(rows)


def _mojibake(text: str, chance: random.Random) -> str:
    spread = "".join(one + (chance.choice("éüßñ—’") if chance.random() < 0.12 else "") for one in text)
    return spread.encode().decode("cp1252", errors="replace")


def _reversed(text: str, chance: random.Random) -> str:
    return text[::-1]


def _letters(text: str, chance: random.Random) -> str:
    return " ".join("".join(chance.sample(word, len(word))) for word in text.split())


def _log(text: str, chance: random.Random) -> str:
    lines = (
        f"{chance.randint(10, 23)}:{chance.randint(10, 59)} [WARN] pid={chance.randint(1, 9999)} {word}.{word}() failed"
        for word in text.split()[:8]
    )
    return "\n".join(lines)


def _halves(text: str, chance: random.Random) -> str:
    return "\n".join(text[start : start + 9] for start in range(0, min(len(text), 300), 30))


def _keys(text: str, chance: random.Random) -> str:
    return " ".join("".join(chance.choices("asdfghjkl;qwe", k=chance.randint(3, 9))) for _ in text.split())


TRAINED_ON: tuple[Damage, ...] = (_shuffled, _noisy, _repeated, _marked_up, _menu, _encoded, _glued, _table)
TESTED_ON: tuple[Damage, ...] = (_mojibake, _reversed, _letters, _log, _halves, _keys)


def train_quality(texts: Sequence[str], seed: int = 0) -> tuple[QualityModel, dict[str, object]]:
    """A model from good texts of eight words or more, and its facts: texts, AUC on held-out ones by kind of damage."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    chance = random.Random(seed)
    good = sorted({text for text in texts if len(text.split()) >= 8})
    chance.shuffle(good)
    held_out = good[: int(len(good) * _HELD_OUT_SHARE)]
    trained = good[len(held_out) :]
    rows, labels = [], []
    for fold in range(_FOLDS):
        # A text is familiar with itself: each is judged by the counts of the others, as new texts will be.
        familiar = familiar_counts([text for n, text in enumerate(trained) if n % _FOLDS != fold])
        for text in trained[fold::_FOLDS]:
            damaged = [damage(text, chance) for damage in chance.sample(TRAINED_ON, 2)]
            rows += [features(one, familiar) for one in (text, *damaged)]
            labels += [1, 0, 0]
    scaler = StandardScaler()
    fitted = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced").fit(
        scaler.fit_transform(numpy.stack(rows)), labels
    )
    model = QualityModel(
        familiar=familiar_counts(trained),
        mean=scaler.mean_.astype(numpy.float32),
        scale=scaler.scale_.astype(numpy.float32),
        weights=fitted.coef_[0].astype(numpy.float32),
        intercept=float(fitted.intercept_[0]),
    )
    facts: dict[str, object] = {
        "trained_on": len(trained),
        "texts": digest(sorted(trained)),
        "seed": seed,
        "held_out": len(held_out),
        **quality_scores(model, held_out, seed + 1),
    }
    return model, facts


def quality_scores(model: QualityModel, good: Sequence[str], seed: int) -> dict[str, object]:
    """AUC of good texts against the same ones damaged, by kind of damage, and the share of good ones kept at 0.5."""
    from sklearn.metrics import roc_auc_score

    chance = random.Random(seed)
    scores = [model.score(text) for text in good]

    def auc(damage: Damage) -> float:
        damaged = [model.score(damage(text, chance)) for text in good]
        return round(float(roc_auc_score([1] * len(good) + [0] * len(good), scores + damaged)), 4)

    return {
        "auc_new_damage": {damage.__name__.strip("_"): auc(damage) for damage in TESTED_ON},
        "auc_known_damage": {damage.__name__.strip("_"): auc(damage) for damage in TRAINED_ON},
        "good_kept_at_half": round(sum(score >= 0.5 for score in scores) / len(scores), 4),
    }
