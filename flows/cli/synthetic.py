"""`factory data synthetic`: what teachers wrote, why it was taken or not, and what people are to decide."""

from typing import Annotated, Any

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say

app = typer.Typer(help="Read what teachers wrote, and decide where they disagree.", no_args_is_help=True)
FeatureName = Annotated[str, typer.Argument(help="A feature's name.")]


@app.command()
def show(
    feature: FeatureName,
    verdict: Annotated[str | None, typer.Option(help="Only these: chosen, outvoted, rejected or queued.")] = None,
    use_case: Annotated[str | None, typer.Option(help="Only this use case.")] = None,
    record: Annotated[str | None, typer.Option(help="Only this record.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many rows.", min=1)] = 20,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Show candidates of the latest run, with scores, verdicts and reasons."""
    from adapters.synthesis.audit import VERDICTS
    from infra.errors import FactoryError

    if verdict is not None and verdict not in VERDICTS:
        raise FactoryError(f"no verdict {verdict!r}; there are: {', '.join(VERDICTS)}")
    wanted = {"verdict": verdict, "use_case": use_case, "id": record}
    rows = [
        row
        for row in _latest(feature, home)[1]
        if all(value is None or row[name] == value for name, value in wanted.items())
    ]
    if json:
        print_json(rows[:limit])
        return
    shown = [
        [row["id"], row["teacher"], row["number"], row["verdict"], f"{row['score']:.2f}", row["target"], _why(row)]
        for row in rows[:limit]
    ]
    print_table(["record", "teacher", "no.", "verdict", "score", "text", "why"], shown)
    if len(rows) > limit:
        say(f"{limit} of {len(rows)} candidates; --limit shows more, --json all figures")


@app.command()
def queue(feature: FeatureName, json: AsJson = False, home: Home = None) -> None:
    """Show the candidates that teachers could not decide between."""
    rows = [row for row in _latest(feature, home)[1] if row["verdict"] == "queued"]
    if json:
        print_json(rows)
        return
    print_table(
        ["record", "teacher", "no.", "text", "why"],
        [[row["id"], row["teacher"], row["number"], row["target"], row["question"]] for row in rows],
    )


@app.command()
def choose(
    feature: FeatureName,
    record: Annotated[str, typer.Argument(help="The record's id.")],
    teacher: Annotated[str, typer.Argument(help="The teacher whose candidate it is.")],
    number: Annotated[int, typer.Argument(help="The candidate's number.")],
    home: Home = None,
) -> None:
    """Make a candidate the record's target; it counts as people's from now on."""
    from infra.errors import FactoryError

    factory, rows = _latest(feature, home)
    key = (record, teacher, number)
    found = [row for row in rows if (row["id"], row["teacher"], row["number"]) == key]
    if not found:
        raise FactoryError(f"{feature}: {teacher} has no candidate {number} for {record}; `show` lists them")
    with factory.workspace.lock():
        known = {one.id: one for one in factory.records(feature)[0]}
        if record not in known or known[record].target is not None:
            raise FactoryError(f"{feature}: {record} is no record without a target; nothing was changed")
        if factory.feature(feature).recipe.task(known[record].use_case) == "digest":
            raise FactoryError(f"{feature}: {record} stands for a stack; add the stack with its digest as a record")
        changes = {"target": found[0]["target"], "source": f"{teacher}, chosen by {factory.actor}"}
        chosen = known[record].model_copy(update=changes)
        factory.data.add_records(feature, [chosen], factory.corpus(feature)[0])
    say(f"{feature}: {record} has its target; the next run trains on it")


def _latest(feature: str, home: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The factory and the rows of a feature's newest audit table."""
    from adapters.synthesis.audit import latest_audit, read_audit
    from flows.factory import open_factory

    factory = open_factory(home)
    return factory, read_audit(latest_audit(factory.synthesis_folder(feature)))


def _why(row: dict[str, Any]) -> str:
    return row["question"] or "; ".join(f"{name}: {reason}" for name, reason in row["reasons"].items())
