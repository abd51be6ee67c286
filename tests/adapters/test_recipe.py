"""Recipes: every mistake at once with its file and key, profiles merged key by key, sections hashed one by one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.recipe import Profile, Recipe, load_recipe, load_yaml, standard_gates
from infra.errors import FactoryError


def content(**changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "feature": "replies",
        "description": "Short replies",
        "data": {
            "corpus": ["corpus/replies.jsonl"],
            "system": "You reply.",
            "use_cases": {"reply": {"prompt": "Reply to this.\n\n{input}", "max_new_tokens": 32}},
        },
        "evaluation": {"metric": "rouge_l"},
    }
    return recipe | changes


def write(tmp_path: Path, recipe: object, name: str = "replies") -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe)
    (folder / "recipe.yaml").write_text(text, "utf-8")
    return folder


def error_of(tmp_path: Path, recipe: object, profile: Profile = "quick") -> str:
    with pytest.raises(FactoryError) as caught:
        load_recipe(write(tmp_path, recipe), profile)
    assert str(tmp_path / "replies" / "recipe.yaml") in str(caught.value)
    return str(caught.value)


def test_short_recipe_gets_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, content()))
    assert (recipe.feature, recipe.training.rank, recipe.synthesis) == ("replies", 16, None)


def test_all_errors_are_told_at_once_with_file_and_key(tmp_path: Path) -> None:
    wrong = content(training={"rank": 0, "epcohs": 3}, evaluation={"metric": "bleu"}, devise={})
    wrong["data"]["use_cases"]["reply"]["prompt"] = "no place for the text"
    message = error_of(tmp_path, wrong)
    assert "5 error(s)" in message
    for key in ("training.rank", "training.epcohs", "evaluation.metric", "devise", "data.use_cases.reply"):
        assert f"\n  {key}: " in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "learning_rate", float("nan")),
        ("training", "learning_rate", float("inf")),
        ("device", "max_adapter_mb", float("inf")),
        ("synthesis", "words", [40, 6]),
        ("synthesis", "words", [0, 6]),
        ("synthesis", "top_p", 1.5),
        ("evaluation", "items_per_use_case", 0),
    ],
)
def test_values_out_of_range_are_named(tmp_path: Path, section: str, key: str, value: object) -> None:
    wrong = content()
    wrong[section] = wrong.get(section, {}) | {key: value}
    assert f"{section}.{key}: " in error_of(tmp_path, wrong)


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"better_than_baseline": {"value": float("nan")}}, "evaluation.gates.better_than_baseline.value: "),
        ({"mine": {"value": 1.0}}, "evaluation.gates.mine.comparison: "),
        ({"mine": {"comparison": "at_least", "value": 1.0, "metric": "beauty"}}, "no metric beauty"),
        ({"mine": {"comparison": "at_least", "value": 1.0, "slice": "email"}}, "gates.mine.slice: 'email'"),
        ({"mine": {"comparison": "better_than_base", "value": 0, "metric": "adapter_mb"}}, "use at_least or at_most"),
        ({"mine": 3}, "evaluation.gates.mine: "),
        ({"better_than_baseline_by": 0.1}, "{better_than_baseline: {value: 0.1}}"),
    ],
)
def test_gate_that_means_nothing_is_refused(tmp_path: Path, gate: dict[str, Any], told: str) -> None:
    assert told in error_of(tmp_path, content(evaluation={"metric": "rouge_l", "gates": gate}))


@pytest.mark.parametrize(
    ("suites", "told"),
    [
        ({"beauty": {"files": {}}}, "no suite 'beauty'"),
        ({"safety": {"files": {"adversarial": "a.jsonl"}}}, "suites.safety.files: names adversarial, overrefusal"),
    ],
)
def test_suite_without_its_files_is_refused(tmp_path: Path, suites: dict[str, Any], told: str) -> None:
    assert told in error_of(tmp_path, content(evaluation={"metric": "rouge_l", "suites": suites}))


def test_figures_of_a_suite_are_there_for_gates(tmp_path: Path) -> None:
    gate = {"metric": "perplexity.perplexity", "comparison": "at_most", "value": 50.0}
    section = {"metric": "rouge_l", "suites": {"perplexity": {"files": {"text": "t.txt"}}}, "gates": {"general": gate}}
    load_recipe(write(tmp_path, content(evaluation=section)))
    del section["suites"]
    assert "no metric perplexity.perplexity" in error_of(tmp_path, content(evaluation=section))


def test_gates_of_a_recipe_change_the_standard_ones(tmp_path: Path) -> None:
    changes = {"refusals_share": None, "better_than_trivial": {"severity": "warn"}}
    changes |= {"fast": {"metric": "seconds_ratio", "comparison": "at_most", "value": 1.5}}
    gates = load_recipe(write(tmp_path, content(evaluation={"metric": "rouge_l", "gates": changes}))).evaluation.gates
    assert gates.keys() == (standard_gates("rouge_l").keys() - {"refusals_share"}) | {"fast"}
    assert (gates["better_than_trivial"].severity, gates["better_than_trivial"].value) == ("warn", 0.0)
    assert gates["fast"].slice == "all" and gates["better_than_baseline"].severity == "block"


@pytest.mark.parametrize("name", ["Replies", "1replies", "re plies", "../replies", "", "r" * 64])
def test_feature_names_are_safe_as_folders_and_in_urls(tmp_path: Path, name: str) -> None:
    assert "\n  feature: " in error_of(tmp_path, content(feature=name))


def test_labels_and_macro_f1_need_each_other(tmp_path: Path) -> None:
    assert "need each other" in error_of(tmp_path, content(evaluation={"metric": "macro_f1"}))
    labelled = content()
    labelled["data"]["labels"] = ["1", "2"]
    assert "need each other" in error_of(tmp_path, labelled)
    load_recipe(write(tmp_path, labelled | {"evaluation": {"metric": "macro_f1"}}))


def test_profile_is_merged_key_by_key(tmp_path: Path) -> None:
    recipe = content(training={"rank": 8, "epochs": 1.0})
    recipe["profiles"] = {
        "full": {"training": {"epochs": 4.0}, "data": {"use_cases": {"reply": {"max_new_tokens": 99}}}},
    }
    folder = write(tmp_path, recipe)
    quick, full = load_recipe(folder, "quick"), load_recipe(folder, "full")
    assert (quick.training.rank, quick.training.epochs) == (8, 1.0)
    assert (full.training.rank, full.training.epochs) == (8, 4.0)
    reply = full.data.use_cases["reply"]
    assert reply.max_new_tokens == 99 and "{input}" in reply.prompt
    assert quick.data.use_cases["reply"].max_new_tokens == 32


def test_list_in_a_profile_replaces_the_list(tmp_path: Path) -> None:
    recipe = content() | {"profiles": {"full": {"data": {"corpus": ["corpus/more.jsonl"]}}}}
    assert load_recipe(write(tmp_path, recipe), "full").data.corpus == ["corpus/more.jsonl"]


def test_wrong_key_in_a_profile_is_found_when_it_is_used(tmp_path: Path) -> None:
    assert "training.epcohs" in error_of(tmp_path, content(profiles={"full": {"training": {"epcohs": 4.0}}}), "full")


@pytest.mark.parametrize("profiles", [{"ful": {"training": {}}}, ["full"], {"full": ["training"]}, "full"])
def test_profiles_that_would_be_ignored_are_refused(tmp_path: Path, profiles: object) -> None:
    assert "profiles: " in error_of(tmp_path, content(profiles=profiles))


@pytest.mark.parametrize("text", ["a: [1", "- a\n- b\n", "just words", "", "a: \x07"])
def test_what_is_no_yaml_mapping_is_told(tmp_path: Path, text: str) -> None:
    message = error_of(tmp_path, text)
    assert "not YAML" in message or "a recipe is a mapping" in message
    assert "\n" not in message


def test_file_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, content())
    (folder / "recipe.yaml").write_bytes(b"description: caf\xe9\n")
    with pytest.raises(FactoryError, match=r"recipe\.yaml: not YAML"):
        load_recipe(folder)


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    assert "not YAML" in error_of(tmp_path, "feature: !!python/object/apply:os.getcwd []\n")


def test_missing_recipe_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match="factory feature new"):
        load_recipe(tmp_path / "nowhere")


def test_folder_and_feature_have_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FactoryError, match=r"'replies'.*'answers'"):
        load_recipe(write(tmp_path, content(), "answers"))
    monkeypatch.chdir(write(tmp_path, content()))
    assert load_recipe(Path()).feature == "replies"


def test_each_section_has_its_own_digest(tmp_path: Path) -> None:
    def digests(recipe: Recipe) -> dict[str, str]:
        return {name: getattr(recipe, name).digest for name in ("data", "training", "evaluation", "device")}

    before = digests(load_recipe(write(tmp_path, content())))
    after = digests(load_recipe(write(tmp_path, content(training={"seed": 1}))))
    assert [name for name in before if before[name] != after[name]] == ["training"]


def test_value_that_equals_the_default_makes_nothing_stale(tmp_path: Path) -> None:
    silent = load_recipe(write(tmp_path, content()))
    spelled = load_recipe(write(tmp_path, content(training={"rank": 16, "alpha": 32, "epochs": 1})))
    assert silent.training.digest == spelled.training.digest


def test_loaded_recipe_does_not_change(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, content()))
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.rank = 8


def test_load_yaml_leaves_no_profiles_behind(tmp_path: Path) -> None:
    folder = write(tmp_path, content(profiles={"full": {"training": {"rank": 32}}}))
    assert "profiles" not in load_yaml(folder / "recipe.yaml", "full")


@pytest.mark.parametrize(
    ("teacher", "problem"),
    [
        ({"url": "http://host:1", "model": "m", "version": 3}, "a url or a version, not both"),
        ({"source": "hf://org/model", "version": 3}, "a source has no url and no version"),
        ({"source": "teacher", "url": "http://host:1", "model": "m"}, "a source has no url and no version"),
        ({"url": "http://host:1"}, "needs the model's name"),
        ({"url": "http://user:secret@host:1", "model": "m"}, "holds no secrets"),
    ],
)
def test_a_teacher_is_one_thing(tmp_path: Path, teacher: dict[str, Any], problem: str) -> None:
    assert problem in error_of(tmp_path, content(synthesis={"teachers": {"big": teacher}}))


def test_tasks_follow_the_metric_unless_they_are_named(tmp_path: Path) -> None:
    assert "no use case letter" in error_of(tmp_path, content(synthesis={"tasks": {"letter": "damage"}}))
    recipe = load_recipe(write(tmp_path, content()))
    assert recipe.task("reply") == "summarize"
    recipe = load_recipe(write(tmp_path, content(synthesis={"tasks": {"reply": "damage"}})))
    assert recipe.task("reply") == "damage" and list(recipe.synthesis.teachers) == ["base"]
