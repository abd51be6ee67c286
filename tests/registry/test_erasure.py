"""Personal text stays where it can be erased: nothing of a record reaches ledger, lineage or channel."""

import json
from pathlib import Path

from adapters.device.package import build_package
from adapters.lineage import lineage_of
from adapters.recipe import load_recipe
from adapters.records import Record
from infra.canonical import digest_folder
from registry.channel import Publication
from tests.registry.samples import make_adapter, make_decision, make_facts
from tests.registry.workshop import Workshop

RECIPE = """\
feature: notes
description: A feature of the test
data: {corpus: [rows.jsonl], system: Answer., use_cases: {main: {prompt: "{input}", max_new_tokens: 8}}}
evaluation: {metric: rouge_l}
"""
PERSON = ("Ottilie", "Brandtmayer", "ob-7731")


def test_digests_are_all_that_is_kept_of_records(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    records = [
        Record(
            id=f"{PERSON[2]}-{number}",
            use_case="main",
            input=f"{PERSON[0]} {PERSON[1]} calls {number} times",
            target=f"{PERSON[0]} calls",
            source=PERSON[1],
            license="CC0-1.0",
        )
        for number in range(20)
    ]
    shop = Workshop(tmp_path / "shop")
    release = shop.release()
    lineage = lineage_of(load_recipe(folder), records, release[0], [("sets/a.txt", " ".join(PERSON))])
    package = tmp_path / "package"
    package.mkdir()
    facts = make_facts(release[0], digest_folder(release[1]), lineage, "notes")
    built = build_package(make_adapter(tmp_path / "adapter"), package, facts)
    decision = make_decision("notes", "promote", 1, lineage).model_copy(update={"package": built.digest})
    row = shop.ledger.append(decision)
    shop.channel.publish([Publication(row, row, package)], shop.heads())
    kept = [shop.folder / "ledger.db", *(shop.folder / "channel").rglob("*"), *package.iterdir()]
    contents = {path: path.read_bytes() for path in kept if path.is_file()}
    assert len(contents) > 10
    assert json.loads((package / "metadata.json").read_text("utf-8"))["lineage"] == lineage.build
    found = [(path.name, word) for path, content in contents.items() for word in PERSON if word.encode() in content]
    assert found == []
