"""`factory generate` and `factory export`: use what is in production."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, say


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    app.command()(generate)
    app.command()(export)


def generate(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    use_case: Annotated[str | None, typer.Option(help="Default: the feature's first.")] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Answer the text on standard input with the production adapter over the palettized base."""
    from adapters.device.package import verify_package
    from adapters.inference.types import Prompt, Sampling
    from flows.factory import open_factory
    from flows.job import System, open_generator
    from infra.errors import FactoryError

    factory = open_factory(home)
    cases = factory.feature(feature).recipe.data.use_cases
    chosen = use_case or next(iter(cases))
    if chosen not in cases:
        raise FactoryError(f"{feature} has no use case {chosen!r}; there are: {', '.join(cases)}")
    text = sys.stdin.read().strip()
    if not text:
        raise FactoryError("nothing on standard input; write the text there: factory generate FEATURE < text.txt")
    version, package = factory.production_package(feature)
    facts = verify_package(package)
    if chosen not in facts.use_cases:
        raise FactoryError(f"{feature} {version.version} was made without use case {chosen!r}; run `factory run`")
    release = factory.release(version.base_release)
    generator = open_generator(System(release, package, version.package), factory.settings.compute)
    prompt = Prompt(facts.system, facts.use_cases[chosen].prompt.replace("{input}", text))
    answer = generator.generate([prompt], Sampling(facts.use_cases[chosen].max_new_tokens))[0][0].text.strip()
    if json:
        print_json({"feature": feature, "version": version.version, "use_case": chosen, "answer": answer})
    else:
        say(answer)


def export(
    feature: Annotated[str, typer.Argument(help="A feature's name.")],
    target: Annotated[
        list[str], typer.Argument(metavar="[VERSION] DIR", help="A version, if not production; a folder.")
    ],
    home: Home = None,
) -> None:
    """Write a version's package, as devices download it, into a new folder."""
    from adapters.device.package import stamp_version
    from flows.factory import open_factory
    from infra.errors import FactoryError

    if len(target) not in (1, 2) or (len(target) == 2 and not target[0].isdigit()):
        raise FactoryError("usage: factory export FEATURE [VERSION] DIR")
    folder = Path(target[-1])
    if folder.exists() and any(folder.iterdir()):
        raise FactoryError(f"{folder}: is not empty; name a new folder")
    factory = open_factory(home)
    factory.feature(feature)
    if len(target) == 2:
        version = factory.catalog.version(feature, int(target[0]))
        package = factory.catalog.package_folder(version)
    else:
        version, package = factory.production_package(feature)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = stamp_version(package, folder, version.version)
    say(f"{feature} {version.version}: {metadata.megabytes:.1f} MB in {folder}")
