"""The recipe: the YAML file that determines an adapter, in sections that are hashed one by one.

A feature is a folder with a `recipe.yaml`. Its sections are data, synthesis, training, evaluation, device, promotion
and resources; a `profiles` mapping (`full:`) holds what another profile changes. Errors are shown all at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.canonical import digest
from infra.compute import Precision
from infra.errors import FactoryError

Profile = Literal["quick", "full"]
T = TypeVar("T", bound=BaseModel)
Metric = Literal["rouge_l", "sari", "macro_f1"]
Comparison = Literal[
    "at_least", "at_most", "better_than_base", "better_than_trivial", "not_worse_than_production", "no_drop"
]
# What is measured beside a feature's own metric, and what is measured of its adapter.
FIGURES: dict[Metric, tuple[str, ...]] = {
    "rouge_l": ("rouge_l", "rouge_1", "rouge_2", "groundedness", "coverage", "copied", "length", "empty", "refused"),
    "sari": ("sari", "gleu", "edit_f05", "meaning_kept", "target_style", "length", "empty", "refused"),
    "macro_f1": ("macro_f1", "accuracy", "error_cost", "brier", "calibration_error", "empty"),
}
MEASURED = ("adapter_mb", "seconds_ratio")
VERDICT_FIGURES = ("win_rate", "good", "poor", "pairs", "graded")
# The files that each suite needs.
SUITE_FILES: dict[str, tuple[str, ...]] = {
    "safety": ("adversarial", "overrefusal"),
    "injections": ("documents", "attacks"),
    "sensitive": ("documents", "terms"),
    "ifeval": ("prompts",),
    "perplexity": ("text",),
}
_FORMER_GATES = {
    "better_than_baseline_by": "better_than_baseline",
    "worse_than_production_by": "not_worse_than_production",
}
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_TARGETS: tuple[LoraTarget, ...] = get_args(LoraTarget)


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the section's content."""
        return digest(self.model_dump(mode="json"))


def _ascending(words: tuple[int, int]) -> tuple[int, int]:
    if not 0 < words[0] <= words[1]:
        raise ValueError("a range of words is [least, most], both positive")
    return words


WordRange = Annotated[tuple[int, int], AfterValidator(_ascending)]


class UseCase(Section):
    """One slice of a feature: how its input is put to the model, and which rows are sane."""

    prompt: str = Field(description="the user message; {input} is replaced by the record's input")
    max_new_tokens: int = Field(gt=0, le=1024)
    input_words: WordRange = (1, 400)
    target_words: WordRange = (1, 200)

    @model_validator(mode="after")
    def _has_input(self) -> "UseCase":
        if "{input}" not in self.prompt:
            raise ValueError("prompt must contain {input}")
        return self

    def ask(self, text: str) -> str:
        """The user message for an input."""
        return self.prompt.replace("{input}", text)


PersonalKind = Literal["email", "url", "iban", "card", "national_id", "ip", "phone", "name"]
PATTERNED: tuple[PersonalKind, ...] = tuple(kind for kind in get_args(PersonalKind) if kind != "name")


class CleaningSection(Section):
    """What is repaired in records, what is replaced, and which records go."""

    encoding: bool = Field(default=True, description="repair what was decoded wrongly; drop control characters")
    personal: list[PersonalKind] = Field(
        default_factory=lambda: list(PATTERNED), description="kinds that placeholders take the place of"
    )
    phone_regions: list[str] = Field(
        default_factory=lambda: ["US", "GB"], description="whose phone numbers need no country code"
    )
    languages: list[str] = Field(default=[], description="ISO 639-1; records in others go; empty: any language")
    profanity: Literal["keep", "targets", "remove"] = "keep"
    quality: float | None = Field(default=None, ge=0, le=1, description="least score of an input; null: not scored")
    near_duplicates: float | None = Field(
        default=0.8, gt=0, le=1, description="Jaccard similarity; null: not looked for"
    )
    ngrams: WordRange = Field(default=(4, 13), description="words of an n-gram that an evaluation text is known by")
    common_ngrams: int = Field(default=1000, gt=0, description="n-grams in more records than this prove nothing")
    evaluation_sets: list[str] = Field(default=[], description="files and folders that nothing is to be trained on")


class DataSection(Section):
    """Where raw records come from and what makes them fit to train on."""

    corpus: list[str] = Field(description="JSONL files, relative to the feature's folder")
    system: str = Field(description="the system message of every prompt of this feature")
    use_cases: dict[str, UseCase] = Field(min_length=1)
    labels: list[str] | None = Field(default=None, description="the closed set of targets of a classifier")
    held_out_share: float = Field(default=0.2, gt=0, lt=1)
    max_quarantined_share: float = Field(default=0.1, ge=0, le=1)
    cleaning: CleaningSection = Field(default_factory=CleaningSection)  # as a default it would be copied deeply


Task = Literal["summarize", "digest", "rewrite", "damage", "classify"]
_TASKS: dict[Metric, Task] = {"rouge_l": "summarize", "sari": "rewrite", "macro_f1": "classify"}


class Teacher(Section):
    """One member of the committee: the full-precision base unless `url`, `version` or `source` is given."""

    url: str = Field(default="", description="an OpenAI-compatible endpoint")
    model: str = Field(default="", description="the endpoint's model")
    version: int | None = Field(default=None, gt=0, description="a registered version of this feature")
    source: str = Field(default="", description="another model, named as base models are; a folder from the feature's")
    at_once: int = Field(default=8, gt=0, le=256, description="requests that an endpoint gets at a time")
    requests_per_minute: float | None = Field(default=None, gt=0, description="at most so many to an endpoint")

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Teacher":
        if self.url and self.version:
            raise ValueError("a teacher has a url or a version, not both")
        if self.source and (self.url or self.version):
            raise ValueError("a teacher with a source has no url and no version")
        if self.url and not self.model:
            raise ValueError("a teacher with a url needs the model's name")
        if "@" in self.url:
            raise ValueError("a teacher's url holds no secrets; its key belongs into the setting teacher_api_keys")
        return self


class SynthesisSection(Section):
    """How targets are made for records that have none, and which candidates are rejected."""

    teachers: dict[str, Teacher] = Field(default={"base": Teacher()}, min_length=1, description="the committee by name")
    tasks: dict[str, Task] = Field(default={}, description="of use cases; by itself what the metric suggests")
    instructions: dict[str, list[str]] = Field(
        default={}, description="of use cases: phrasings of what teachers are told, instead of the factory's"
    )
    candidates: int = Field(
        default=4,
        gt=0,
        le=64,
        description="of each teacher for each document: its likeliest answer, and others at random",
    )
    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=64, gt=0)
    words: WordRange = (6, 40)
    max_copied_share: float = Field(default=0.8, gt=0, le=1)
    human_share_kept: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="of people's own targets that pass the rules: what the learnt filters together let pass at least",
    )
    tie: float = Field(default=0.01, ge=0, lt=1, description="two candidates closer than this go to people")
    max_documents: int = Field(default=500, gt=0)
    seed: int = 0


class TrainingSection(Section):
    """LoRA and optimiser settings."""

    rank: int = Field(default=16, gt=0, le=64)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[LoraTarget] = Field(default=list(LORA_TARGETS), min_length=1)
    start: Literal["recovery", "scratch"] | Annotated[int, Field(gt=0)] = Field(
        default="recovery", description="the recovery adapter, a new LoRA, or the number of a version of the feature"
    )
    precision: Precision = Field(default="auto", description="of the base; the LoRA's masters are fp32")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epochs: float = Field(default=1.0, gt=0)
    token_budget: int | None = Field(default=None, gt=0, description="tokens to train on, instead of epochs")
    held_out_share: float = Field(default=0.0, ge=0, le=0.5, description="of the prompts, for early stopping")
    check_every: int = Field(default=20, gt=0, description="steps between two held-out losses")
    patience: int = Field(default=3, ge=0, description="checks without improvement that end a training; 0: never")
    packing: bool = Field(default=True, description="false: padded rows, which models other than Llama need")
    batch_tokens: int = Field(default=2048, gt=0, description="tokens per optimiser step, padding included")
    max_tokens: int = Field(default=512, gt=0, description="longer examples are left out and counted")
    seed: int = 0
    devices: int = Field(default=1, gt=0, le=64, description="processes that train together, each on a device")
    sharded: bool = Field(default=False, description="the base's layers spread over the devices, not copied to each")

    @property
    def digest(self) -> str:
        """SHA-256 of the section's content; on how many devices is no part of what is trained."""
        return digest(self.model_dump(mode="json", exclude={"devices", "sharded"}))

    @model_validator(mode="after")
    def _has_devices_to_shard_over(self) -> "TrainingSection":
        if self.sharded and self.devices == 1:
            raise ValueError("sharded needs devices of 2 or more")
        return self


class GateRule(Section):
    """One gate: which figure of the candidate is held against what, and what it means if it fails."""

    metric: str = Field(default="score", description="score is the feature's own; others by name")
    slice: str = Field(default="all", description="all, each (every use case by itself), or a use case")
    comparison: Comparison
    value: float = Field(description="the floor or budget, or the margin of a comparison with another system")
    judged: Literal["bound", "figure"] | None = Field(
        default=None,
        description="what must keep to the value: the figure, or the bound of its interval that counts against the "
        "candidate; by itself the bound of a comparison and of a budget of a suite, and else the figure",
    )
    severity: Literal["block", "warn"] = "block"


def standard_gates(metric: Metric) -> dict[str, dict[str, Any]]:
    """The gates of a feature with this metric, before its recipe changes any."""
    gates: dict[str, dict[str, Any]] = {
        "better_than_baseline": {"comparison": "better_than_base", "value": 0.0},
        "better_than_trivial": {"comparison": "better_than_trivial", "value": 0.0},
        "not_worse_than_production": {"comparison": "not_worse_than_production", "value": 0.05},
        "no_drop_in_a_use_case": {"comparison": "no_drop", "slice": "each", "value": 0.05, "severity": "warn"},
        "empty_answers_share": {"metric": "empty", "comparison": "at_most", "value": 0.05},
    }
    if metric != "macro_f1":
        gates["refusals_share"] = {"metric": "refused", "comparison": "at_most", "value": 0.05}
    return gates


class SuiteRule(Section):
    """A suite that every candidate is put through, beside the feature's own items."""

    files: dict[str, str] = Field(description="the suite's files by name; paths are relative to the feature's folder")
    items: int = Field(default=100, gt=0)


class VerdictsSection(Section):
    """Whose verdicts on a candidate's answers are measured, for gates to be held against."""

    model: bool = Field(default=False, description="the model that settings name compares the candidate with the base")
    items: int = Field(default=20, gt=0, description="of each use case, for the model")
    people: str | None = Field(default=None, description="JSONL of people's verdicts; relative to the feature's folder")

    def figures(self) -> set[str]:
        """The names of what is measured."""
        who = [name for name, asked in (("model", self.model), ("people", self.people)) if asked]
        unread = {"verdicts.model.unread"} if self.model else set()
        return unread | {f"verdicts.{name}.{figure}" for name in who for figure in VERDICT_FIGURES}


class EvaluationSection(Section):
    """How a candidate is tested on the held-out records.

    `gates` in a recipe changes the standard ones by name, key by key; null takes one out, a new name adds one.
    """

    metric: Metric
    items_per_use_case: int = Field(default=100, gt=0)
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = Field(
        default={}, description="of a classifier's errors: true label → label taken for it → cost; 1 where unsaid"
    )
    suites: dict[str, SuiteRule] = {}
    verdicts: VerdictsSection = Field(default_factory=VerdictsSection)
    gates: dict[str, GateRule] = {}

    @model_validator(mode="before")
    @classmethod
    def _standard_gates(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("metric") not in get_args(Metric):
            return content
        changes = content.get("gates") or {}
        if not isinstance(changes, dict):
            return content
        gates: dict[str, Any] = dict(standard_gates(content["metric"]))
        for name, change in changes.items():
            if name in _FORMER_GATES:
                raise ValueError(f"gates.{name} is written gates: {{{_FORMER_GATES[name]}: {{value: {change}}}}}")
            if change is None:
                gates.pop(name, None)
            else:
                gates[name] = gates.get(name, {}) | change if isinstance(change, dict) else change
        return {**content, "gates": gates}

    @model_validator(mode="after")
    def _suites_have_their_files(self) -> "EvaluationSection":
        for name, rule in self.suites.items():
            if name not in SUITE_FILES:
                raise ValueError(f"suites: no suite {name!r}; there are: {', '.join(SUITE_FILES)}")
            if set(rule.files) != set(SUITE_FILES[name]):
                raise ValueError(f"suites.{name}.files: names {', '.join(SUITE_FILES[name])}, and no other")
        return self

    @model_validator(mode="after")
    def _gates_name_figures(self) -> "EvaluationSection":
        known = {"score", *FIGURES[self.metric], *MEASURED, *self.verdicts.figures()}
        named = {rule.metric for rule in self.gates.values() if rule.metric.split(".")[0] not in self.suites}
        unknown = sorted(named - known)
        if unknown:
            told = ", ".join(sorted(known))
            raise ValueError(f"gates: no metric {', '.join(unknown)}; there are: {told}, and SUITE.FIGURE of a suite")
        by_item = {"score", *FIGURES[self.metric]} - {"calibration_error"}
        for name, rule in self.gates.items():
            if rule.comparison not in ("at_least", "at_most") and rule.metric not in by_item:
                raise ValueError(f"gates.{name}: {rule.metric} is no figure of single answers; use at_least or at_most")
            if rule.comparison == "no_drop" and rule.judged:
                raise ValueError(f"gates.{name}: no_drop judges a p-value; leave `judged` out")
        return self


class DeviceSection(Section):
    """What a device can take."""

    max_adapter_mb: float = Field(default=16.0, gt=0)


class PromotionSection(Section):
    """Who decides about promotions. No adapter depends on it, so it is part of no key."""

    approval: Literal["none", "required"] = Field(default="none", description="whether a second person must agree")
    request_days: float = Field(default=7.0, gt=0, description="how long a request for approval lasts")

    @property
    def approval_days(self) -> float | None:
        """How long a request for approval lasts, None if none is needed."""
        return self.request_days if self.approval == "required" else None


class ResourcesSection(Section):
    """What a run of the feature asks a cluster for. No adapter depends on it, so it is part of no key."""

    cpu: float | None = Field(default=None, gt=0, description="cores; null: what the work pool gives")
    memory: str | None = Field(
        default=None, pattern=r"^[1-9][0-9]*[KMGT]i$", description="24Gi, asked for and at most; null: the pool's"
    )


class Recipe(Section):
    """A feature's whole recipe, after its profile's changes were merged in."""

    feature: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    description: str
    data: DataSection
    synthesis: SynthesisSection | None = None
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection
    device: DeviceSection = Field(default_factory=DeviceSection)
    promotion: PromotionSection = Field(default_factory=PromotionSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)

    @model_validator(mode="after")
    def _labels_and_metric_agree(self) -> "Recipe":
        if (self.evaluation.metric == "macro_f1") != (self.data.labels is not None):
            raise ValueError("evaluation.metric macro_f1 and data.labels need each other")
        return self

    @model_validator(mode="after")
    def _synthesis_names_use_cases(self) -> "Recipe":
        section = self.synthesis
        for key, named in (("tasks", section.tasks), ("instructions", section.instructions)) if section else ():
            if unknown := sorted(named.keys() - self.data.use_cases.keys()):
                raise ValueError(f"synthesis.{key}: no use case {', '.join(unknown)}")
        return self

    def task(self, use_case: str) -> Task:
        """What teachers do for a use case."""
        tasks = self.synthesis.tasks if self.synthesis else {}
        return tasks.get(use_case, _TASKS[self.evaluation.metric])

    @model_validator(mode="after")
    def _gates_name_use_cases(self) -> "Recipe":
        known = {"all", "each", *self.data.use_cases}
        for name, rule in self.evaluation.gates.items():
            if rule.slice not in known:
                raise ValueError(f"evaluation.gates.{name}.slice: {rule.slice!r} is none of {', '.join(sorted(known))}")
        return self


def load_yaml(path: Path, profile: Profile) -> dict[str, Any]:
    """Read a YAML mapping and merge `profiles.<profile>` into it, key by key.

    Raises:
        FactoryError: the file is missing or is not a YAML mapping, or its profiles are not mappings of known names.
    """
    try:
        # The safe loader in C: as strict as `yaml.safe_load`, and ten times as fast.
        content = yaml.CSafeLoader(path.read_text("utf-8")).get_single_data()
    except FileNotFoundError:
        raise FactoryError(f"{path}: no such recipe; `factory feature new NAME` makes one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FactoryError(f"{path}: not YAML: {str(error).replace(chr(10), ' ')}") from None
    if not isinstance(content, dict):
        raise FactoryError(f"{path}: a recipe is a mapping of sections, this file holds {type(content).__name__}")
    profiles = content.pop("profiles", None) or {}
    known = get_args(Profile)
    if not isinstance(profiles, dict) or not all(
        name in known and isinstance(changes, dict) for name, changes in profiles.items()
    ):
        raise FactoryError(f"{path}: profiles: must map {' or '.join(known)} to the sections that it changes")
    return _merged(content, profiles.get(profile, {}))


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for name, value in changes.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def validate(model: type[T], content: dict[str, Any], where: Path | str) -> T:
    """Build `model` from a mapping.

    Raises:
        FactoryError: naming the file (or whatever `where` is) and every wrong key at once.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors()]
        raise FactoryError(f"{where}: {len(lines)} error(s)\n" + "\n".join(lines)) from None


def load_recipe(folder: Path, profile: Profile = "quick") -> Recipe:
    """Load a feature folder's `recipe.yaml`.

    Raises:
        FactoryError: missing file, bad YAML, or any number of wrong keys, all named.
    """
    path = folder / "recipe.yaml"
    recipe = validate(Recipe, load_yaml(path, profile), path)
    name = folder.absolute().name
    if recipe.feature != name:
        raise FactoryError(f"{path}: feature is {recipe.feature!r}, but the folder is {name!r}; make them equal")
    return recipe
