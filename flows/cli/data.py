"""`factory data`: add, remove and inspect a feature's records."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say

app = typer.Typer(help="Add, remove and inspect records.", no_args_is_help=True)
FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]


@app.command()
def add(
    feature: FeatureName,
    file: Annotated[Path, typer.Argument(help="JSONL or CSV, a row a record.")],
    use_case: Annotated[str | None, typer.Option(help="The use case of rows that name none.")] = None,
    input_field: Annotated[str, typer.Option(help="Column that holds the input.")] = "input",
    target_field: Annotated[str, typer.Option(help="Column that holds the target, if there is one.")] = "target",
    source: Annotated[str | None, typer.Option(help="Where the rows come from (default: the file's name).")] = None,
    license: Annotated[str, typer.Option(help="Licence of rows that name none.")] = "proprietary",
    home: Home = None,
) -> None:
    """Add records; one with an id that exists replaces it. Rows that are no records are quarantined and counted."""
    from adapters.data.convert import convert
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
    strangers = sorted({record.use_case for record in records} - known.keys())
    if strangers:
        raise FactoryError(f"{file}: {feature} has no use case {strangers[0]!r}; there are: {', '.join(known)}")
    with factory.workspace.lock():
        version = factory.data.add_records(feature, records)
    say(f"{feature}: {len(records)} records added, data version {version.md5[:10]}")
    for row in refused[:10]:
        say(f"  quarantined {row.where}: {row.reason}")
    if refused:
        say(f"  {len(refused)} rows quarantined")
    if not records:
        raise FactoryError(f"{file}: no record could be read; see the reasons above")


@app.command()
def remove(
    feature: FeatureName,
    ids: Annotated[list[str], typer.Argument(help="Ids of the records.")],
    home: Home = None,
) -> None:
    """Remove records, and name the versions that were trained on them."""
    from flows.factory import open_factory
    from flows.trained_on import versions_trained_on
    from infra.errors import FactoryError

    factory = open_factory(home)
    with factory.workspace.lock():
        known = {record.id for record in factory.records(feature)[0]}
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise FactoryError(f"{feature} has no record {', '.join(unknown)}; nothing was removed")
        trained = versions_trained_on(factory, feature, ids)
        factory.data.remove_records(feature, ids)
    for one, versions in trained.items():
        named = ", ".join(map(str, versions)) or "none"
        say(f"{feature}: removed {one}; versions trained on it: {named}")


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
