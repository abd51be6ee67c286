"""Random sequences of promotions, rollbacks, forced and concurrent decisions, tests and kills keep what must hold.

After every command that went to its end, ledger, aliases and channel agree; a killed one has decided or has not; of two
at once at most one decides in the place of the other; no row is ever lost, doubled or changed.

A sequence takes about two seconds, so `make test` runs four of them, and `make test-all` sixty.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from infra.errors import FactoryError
from registry.promotion import promote
from tests.registry.conftest import Place
from tests.registry.decider import FEATURE, WHO, Decider, Killed
from tests.registry.test_drill import copy_of, require_agreement

pytestmark = pytest.mark.servers
VERSIONS = st.integers(1, 4)
COMMANDS = st.one_of(
    st.builds(lambda version, force: ("promote", {"version": version, "force": force}), VERSIONS, st.booleans()),
    st.builds(lambda to: ("rollback", {"to": to}), st.none() | VERSIONS),
)


def machine_over(template: Path) -> type[RuleBasedStateMachine]:
    """The machine, each of whose runs starts from a copy of `template`."""

    class Registries(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            self.scratch = tempfile.TemporaryDirectory()
            self.folder = copy_of(template, Path(self.scratch.name) / "registry")
            self.deciders = [Decider(self.folder)]
            self.rows: list[Any] = self.deciders[0].ask("state")["rows"]
            self.whole = True

        def tell(self, command: str, arguments: dict[str, Any], die_before: int | None = None) -> None:
            """One command; refusals are answers, too."""
            try:
                self.deciders[0].ask(command, die_before, **arguments)
            except FactoryError:
                # Refused before anything was decided, but after the repair.
                self.whole = True
            except Killed:
                self.deciders[0].stop()
                self.deciders[0] = Decider(self.folder)
                self.whole = False
            else:
                self.whole = True

        @rule(command=COMMANDS)
        def decide(self, command: tuple[str, dict[str, Any]]) -> None:
            self.tell(*command)

        @rule(version=VERSIONS, passed=st.booleans())
        def test_again(self, version: int, passed: bool) -> None:
            self.deciders[0].ask("evaluate", version=version, passed=passed)

        @rule()
        def release_hold(self) -> None:
            self.tell("release_hold", {})

        @rule(command=COMMANDS, step=st.integers(1, 25))
        def kill(self, command: tuple[str, dict[str, Any]], step: int) -> None:
            self.tell(*command, die_before=step)

        @rule(commands=st.tuples(COMMANDS, COMMANDS))
        def decide_at_once(self, commands: tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]) -> None:
            if len(self.deciders) == 1:
                self.deciders.append(Decider(self.folder))
            before = len(self.rows)
            for decider, (command, arguments) in zip(self.deciders, commands, strict=True):
                decider.start(command, **arguments)
            decided = 0
            for decider in self.deciders:
                try:
                    decider.answer()
                    decided += 1
                except FactoryError:
                    pass
            state = self.deciders[0].ask("state")
            assert len(state["rows"]) - before <= decided
            # The one that came second may have been told that the channel was ahead of what it had read.
            self.whole = state["unfinished"] == []

        @invariant()
        def holds(self) -> None:
            state = self.deciders[0].ask("state")
            assert state["rows"][: len(self.rows)] == self.rows, "a row was lost or changed"
            assert [row[0] for row in state["rows"]] == list(range(1, len(state["rows"]) + 1))
            assert state["findings"] == []
            self.rows = state["rows"]
            if self.whole:
                require_agreement(state)

        def teardown(self) -> None:
            if hasattr(self, "deciders"):
                self.tell("repair", {})
                require_agreement(self.deciders[0].ask("state"))
                for decider in self.deciders:
                    decider.stop()
                self.scratch.cleanup()

    return Registries


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, open_place: Callable[..., Place]) -> Path:
    """A registry with version 1 in production, 2 and 3 tested against it, and 4 that failed."""
    place = open_place(tmp_path_factory.mktemp("stateful") / "template")
    release = place.release()
    place.version(release)
    promote(place.registry, FEATURE, 1, **WHO)
    for data, passed in (("two", True), ("three", True), ("four", False)):
        place.version(release, data, passed)
    return place.folder


def _run(template: Path, sequences: int) -> None:
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    profile = settings(
        max_examples=sequences, stateful_step_count=8, deadline=None, suppress_health_check=health, database=None
    )
    run_state_machine_as_test(machine_over(template), settings=profile)


def test_a_few_random_sequences_keep_the_invariants(template: Path) -> None:
    _run(template, 4)


@pytest.mark.slow
def test_sixty_random_sequences_keep_the_invariants(template: Path) -> None:
    _run(template, 60)
