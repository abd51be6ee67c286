"""`factory ledger`: check that decisions are as they were written, and put right what follows them."""

import sys

import typer

from flows.cli.output import PATIENCE, AsJson, Home, print_json, say

app = typer.Typer(help="Check the ledger, and put right what follows it.", no_args_is_help=True)


@app.command()
def verify(json: AsJson = False, home: Home = None) -> None:
    """Find rows that were edited, reordered, taken out or cut off; exit code 1 if there are any."""
    from flows.factory import open_factory
    from registry import projection

    registry = open_factory(home).registry
    findings = projection.verify(registry)
    heads = registry.ledger.heads()
    if json:
        print_json(
            {
                "whole": not findings,
                "rows": {feature: head.number for feature, head in heads.items()},
                "findings": [finding._asdict() for finding in findings],
            }
        )
    else:
        for finding in findings:
            say(str(finding))
        if not findings:
            say(f"{sum(head.number for head in heads.values())} rows of {len(heads)} features are as they were written")
    if findings:
        sys.exit(1)


@app.command()
def repair(json: AsJson = False, home: Home = None) -> None:
    """Make MLflow's aliases and the channel what the ledger says, whatever was done to them."""
    from flows.factory import open_factory
    from registry import projection

    factory = open_factory(home)
    with factory.workspace.lock("decisions", PATIENCE):
        done = projection.repair_from_ledger(factory.registry)
    if json:
        print_json({"repaired": done})
        return
    for line in done:
        say(line)
    if not done:
        say("aliases and channel are what the ledger says")
