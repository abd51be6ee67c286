"""`factory data`: add, remove and inspect a feature's records."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli import synthetic
from flows.cli.output import PATIENCE, AsJson, Home, print_json, print_table, say, short

app = typer.Typer(help="Add, remove and inspect records.", no_args_is_help=True)
app.add_typer(synthetic.app, name="synthetic")
FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]
_SHOWN = 10


@app.command()
def add(
    feature: FeatureName,
    file: Annotated[
        Path, typer.Argument(help="JSONL, JSON, CSV, Parquet, mail, chat export, text, or a folder of them.")
    ],
    use_case: Annotated[str | None, typer.Option(help="The use case of rows that name none.")] = None,
    input_field: Annotated[str, typer.Option(help="Column that holds the input.")] = "input",
    target_field: Annotated[str, typer.Option(help="Column that holds the target, if there is one.")] = "target",
    source: Annotated[str | None, typer.Option(help="Where the rows come from (default: the file's name).")] = None,
    license: Annotated[str, typer.Option(help="Licence of rows that name none.")] = "proprietary",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Add records; one with an id that exists replaces it. Rows that are no records are quarantined and counted."""
    from adapters.data.convert import convert
    from adapters.records import Quarantined
    from flows.events import changing
    from flows.factory import open_factory
    from infra.errors import FactoryError

    factory = open_factory(home)
    known = factory.feature(feature).recipe.data.use_cases
    if use_case is not None and use_case not in known:
        raise FactoryError(f"{feature} has no use case {use_case!r}; there are: {', '.join(known)}")
    records, refused = convert(
        file,
        use_case=use_case,
        input_field=input_field,
        target_field=target_field,
        source=source or file.name,
        license=license,
    )
    for record in records:
        if record.use_case not in known:
            reason = f"{feature} has no use case {record.use_case!r}; there are: {', '.join(known)}"
            refused.append(Quarantined(record.id, reason, record.model_dump_json()))
    records = [record for record in records if record.use_case in known]
    version = None
    if records:
        with changing(factory, "data", PATIENCE, [feature]):
            version = factory.data.add_records(feature, records, factory.corpus(feature)[0]).md5
    if json:
        print_json({"added": len(records), "data_version": version, "quarantined": [asdict(row) for row in refused]})
    else:
        if version:
            say(f"{feature}: {len(records)} records added, data version {short(version)}")
        for row in refused[:_SHOWN]:
            say(f"  quarantined {row.where}: {row.reason}")
        if refused:
            say(f"  {len(refused)} rows quarantined; --json tells all of them")
    if not records:
        raise FactoryError(f"{file}: no record could be read; see the reasons above")


@app.command()
def remove(
    feature: FeatureName,
    ids: Annotated[list[str], typer.Argument(help="Ids of the records.")],
    home: Home = None,
) -> None:
    """Remove records, with what teachers wrote about them, and name the versions that were trained on them.

    While the feature is being run, nothing is removed: the run would write about the records again.
    """
    from adapters.synthesis.audit import forget
    from flows.events import changing, part_of
    from flows.factory import open_factory
    from flows.trained_on import versions_trained_on
    from infra.errors import FactoryError

    factory = open_factory(home)
    factory.feature(feature)
    # At once, not after a while: a run takes longer than anybody waits.
    with factory.workspace.lock(part_of(feature)), changing(factory, "data", PATIENCE, [feature]):
        known = {record.id for record in factory.records(feature)[0]}
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise FactoryError(f"{feature} has no record {', '.join(unknown)}; nothing was removed")
        trained = versions_trained_on(factory, feature, ids)
        factory.data.remove_records(feature, ids, factory.corpus(feature)[0])
        drafts = forget(factory.synthesis_folder(feature), set(ids))
    for one, versions in trained.items():
        named = ", ".join(map(str, versions)) or "none"
        say(f"{feature}: removed {one}; versions trained on it: {named}")
    if drafts:
        say(f"  {drafts} rows of what teachers wrote about them are gone, too")


@app.command()
def status(json: AsJson = False, home: Home = None) -> None:
    """Count each feature's records and show its newest data version."""
    from adapters.records import split_held_out
    from flows.factory import open_factory

    factory = open_factory(home)
    rows: list[dict[str, Any]] = []
    for name, feature in factory.features.items():
        records, refused = factory.records(name)
        share = feature.recipe.data.held_out_share
        versions = factory.data.versions(name)
        for use_case in feature.recipe.data.use_cases:
            of_case = [record for record in records if record.use_case == use_case]
            training, held_out = split_held_out(of_case, share)
            rows.append(
                {
                    "feature": name,
                    "use_case": use_case,
                    "training": sum(record.target is not None for record in training),
                    "unlabelled": sum(record.target is None for record in training),
                    "held_out": sum(record.target is not None for record in held_out),
                    "refused": len(refused),
                    "data_version": versions[-1].md5 if versions else None,
                }
            )
    if json:
        print_json(rows)
        return
    shown = [[*list(row.values())[:-1], (row["data_version"] or "–")[:10]] for row in rows]
    print_table(["feature", "use case", "training", "unlabelled", "held out", "refused", "data version"], shown)


@app.command()
def log(feature: FeatureName, json: AsJson = False, home: Home = None) -> None:
    """The versions of a feature's data, newest first."""
    from flows.factory import open_factory

    factory = open_factory(home)
    factory.feature(feature)
    versions = factory.data.versions(feature)[::-1]
    if json:
        print_json([asdict(version) for version in versions])
        return
    print_table(["version", "what was done"], [[short(version.md5), version.message] for version in versions])


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A data version, or its first characters.")],
    after: Annotated[str, typer.Argument(help="Another version of the same feature.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Tell which records were added, removed and changed between two versions of a feature's data."""
    from adapters.data.overlay import difference, version_records
    from flows.factory import open_factory
    from infra.errors import FactoryError

    data = open_factory(home).data
    (feature, old), (other, new) = data.find(before), data.find(after)
    if feature != other:
        raise FactoryError(
            f"{before} is a version of {feature}, {after} one of {other}; compare versions of one feature"
        )
    found = difference(version_records(data.files(feature, old)), version_records(data.files(feature, new)))
    if json:
        print_json({"feature": feature, "before": old.md5, "after": new.md5, **asdict(found)})
        return
    say(f"{feature}: {len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed")
    rows = [[one, "added", ""] for one in found.added] + [[one, "removed", ""] for one in found.removed]
    rows += [[one, "changed", ", ".join(fields)] for one, fields in found.changed.items()]
    if rows:
        print_table(["record", "what", "fields"], rows)


@app.command()
def push(home: Home = None) -> None:
    """Bring all versions of the data to the place that `data_remote` names."""
    from flows.factory import open_factory

    factory = open_factory(home)
    with factory.workspace.lock("data", PATIENCE):
        count = factory.data_remote.push()
    say(f"{count} data versions are in {factory.data_remote.url}")


@app.command()
def pull(home: Home = None) -> None:
    """Bring the versions of the data here from the place that `data_remote` names."""
    from flows.events import changing
    from flows.factory import open_factory

    factory = open_factory(home)
    with changing(factory, "data", PATIENCE, list(factory.features)):
        count = factory.data_remote.pull()
    say(f"{count} data versions from {factory.data_remote.url}")
