"""Devices that are on a former base release: their rollouts, rollbacks and holds, by name of the release."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from infra.errors import FactoryError
from registry import decisions, rollout
from registry.checks import release_named
from registry.projection import repair, verify
from registry.promotion import promote, release_hold, rollback
from tests.registry.conftest import Place
from tests.registry.samples import ACTOR

pytestmark = pytest.mark.servers
FEATURE = "summarization"
WHO = {"actor": ACTOR, "reason": "test"}


@pytest.fixture
def former(place: Place) -> str:
    """The key of a release that was replaced while version 2 was rolled out over it, beside version 1."""
    old = place.release()
    for data in ("one", "two"):
        version = place.version(old, data)
        if data == "one":
            promote(place.registry, FEATURE, version.version, **WHO)
    rollout.start(place.registry, FEATURE, 2, 0.05, **WHO)
    new = place.release("other")
    promote(place.registry, FEATURE, place.version(new, "three").version, **WHO)
    return old[0]


def pointed(place: Place, release: str) -> tuple[int, int | None]:
    """What the channel gives devices on a release: in production, and rolled out."""
    pointer = place.registry.channel.pointer(FEATURE, release)
    assert pointer is not None
    return pointer.version, pointer.rollout.version if pointer.rollout else None


def test_a_rollout_over_a_former_release_goes_on_and_is_halted(place: Place, former: str) -> None:
    with pytest.raises(
        FactoryError, match=f"nothing is being rolled out .* one runs for {former[:12]}.*--base-release"
    ):
        rollout.halt(place.registry, FEATURE, **WHO)
    assert rollout.step(place.registry, FEATURE, 0.5, base_release=former, **WHO).share == 0.5
    assert pointed(place, former) == (1, 2)
    row = rollout.halt(place.registry, FEATURE, base_release=former, **WHO)
    assert (row.action, row.version, row.replaced, row.base_release) == ("roll back", 1, 2, former)
    assert pointed(place, former) == (1, None)
    with pytest.raises(FactoryError, match=f"no version is held for base release .* held for {former[:12]}"):
        release_hold(place.registry, FEATURE, **WHO)
    (released,) = release_hold(place.registry, FEATURE, base_release=former, **WHO)
    assert (released.version, released.base_release) == (2, former)
    assert decisions.holds(place.registry.ledger.rows(FEATURE), former) == {}


def test_a_former_release_is_promoted_to_its_end_and_rolled_back(place: Place, former: str) -> None:
    current = place.registry.ledger.current_release()
    assert current is not None
    assert rollout.step(place.registry, FEATURE, 1, base_release=former, **WHO).version == 2
    assert pointed(place, former) == (2, None)
    with pytest.raises(FactoryError, match="first good version"):
        rollback(place.registry, FEATURE, **WHO)
    assert rollback(place.registry, FEATURE, base_release=former, **WHO).version == 1
    assert pointed(place, former) == (1, None)
    assert pointed(place, current.base_release) == (3, None)
    assert repair(place.registry) == [] and verify(place.registry) == []


def test_a_release_is_named_by_its_version_or_its_key(place: Place, former: str) -> None:
    current = place.registry.ledger.current_release()
    assert current is not None
    assert release_named(place.registry.ledger, None) == current.base_release
    for name in ("1", former, former[:10]):
        assert release_named(place.registry.ledger, name) == former
    for name in ("3", "f" * 64, former[:3], ""):
        with pytest.raises(FactoryError, match=rf"no base release '{name}'; there are 1 \({former[:12]}\), 2 \("):
            release_named(place.registry.ledger, name)


def test_the_commands_take_the_release_and_the_matrix_shows_the_rollout(
    place: Place, former: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder.parent)
    monkeypatch.setenv("FACTORY_HOME", str(place.folder))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    (shown,) = json.loads(run("registry", "matrix", "--json"))["rollouts"]
    assert shown == {"feature": FEATURE, "base_release": former, "version": 2, "share": 0.05}
    assert "1, 2 for 5%" in run("registry", "matrix")
    why = ("--reason", "complaints", "--base-release")
    assert "2 for 50% of the devices" in run("rollout", FEATURE, "50%", *why, "1")
    assert "2 is in production" in run("rollout", FEATURE, "100%", *why, former[:10])
    assert json.loads(run("registry", "matrix", "--json"))["rollouts"] == []
    assert "1 is in production again" in run("rollback", FEATURE, *why, "1")
    assert "2 may be promoted again" in run("release-hold", FEATURE, *why, "1")
    assert {row["base_release"] for row in json.loads(run("history", FEATURE, "--json"))[-4:]} == {former}
