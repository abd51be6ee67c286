"""`factory`: the one entry point. Errors of the user are one line; exit codes: 0 done, 1 a gate said no, 2 input."""

import sys

import typer

from flows.cli import (
    base,
    bench,
    channel,
    data,
    decide,
    device,
    evaluate,
    feature,
    judge,
    ledger,
    registry,
    rollout,
    run,
    serve,
    stack,
    triggers,
    upkeep,
)
from infra.errors import FactoryError, disk_full
from infra.libraries import quieten

app = typer.Typer(
    name="factory",
    help="Retrains, tests and ships LoRA adapters for one palettized on-device base model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
run.register(app)
decide.register(app)
serve.register(app)
triggers.register(app)
evaluate.register(app)
judge.register(app)
app.add_typer(data.app, name="data")
app.add_typer(base.app, name="base")
app.add_typer(feature.app, name="feature")
app.add_typer(registry.app, name="registry")
app.add_typer(ledger.app, name="ledger")
app.add_typer(channel.app, name="channel")
app.add_typer(device.app, name="device")
rollout.register(app)
bench.register(app)
upkeep.register(app)
stack.register(app)


def main() -> None:
    """Run the command line."""
    quieten()
    try:
        app()
    except FactoryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        said = disk_full(error)
        if said is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{said}; make room and run again, finished parts are kept", file=sys.stderr)
        sys.exit(FactoryError.exit_code)
    except KeyboardInterrupt:
        print("stopped; the next run goes on where this one was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
