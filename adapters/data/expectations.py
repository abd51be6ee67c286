"""Checkpoints: what a feature's records must be at each stage, checked by Great Expectations, shown in its Data Docs.

A warning is about rows: those that fail are left out, and the feature goes on. A critical failure stops it.
"""

import logging
import numbers
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.data.suites import Stage, expectations, table
from adapters.recipe import DataSection
from adapters.records import Record

DATA_DOCS = "data_docs"
_NAMED = 5


@dataclass(frozen=True)
class Verdict:
    """What came of one expectation: at which stage, about what, what was expected, what was found, in words."""

    stage: str
    what: str
    expected: str
    passed: bool
    found: str
    severity: str

    @property
    def problem(self) -> str:
        """The failure in one line."""
        return f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Failure:
    """A record, by its position, that breaks an expectation: about what, what was expected, what was found."""

    position: int
    what: str
    expected: str
    found: str


@dataclass(frozen=True)
class Validation:
    """The outcome of a suite. `repeated` lists **all** rows that share a value that must be unique."""

    verdicts: list[Verdict]
    failures: list[Failure]
    repeated: list[Failure]

    @property
    def critical(self) -> list[Verdict]:
        """The failures that stop the feature."""
        return [verdict for verdict in self.verdicts if not verdict.passed and verdict.severity == "critical"]


class Checkpoints:
    """The checkpoints of one feature, which write Data Docs (HTML) into the folder `site`."""

    def __init__(self, feature: str, section: DataSection, site: Path) -> None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        import great_expectations as gx

        # Its import lets this one tell of a temporary folder at every checkpoint.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        self._feature = feature
        self._section = section
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.absolute())}
        self._context.add_data_docs_site(
            DATA_DOCS,
            {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": store,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
        self._source = self._context.data_sources.add_pandas(feature)

    def check(
        self,
        stage: Stage,
        records: Sequence[Record],
        *,
        held_out: Collection[str] = (),
        unlabelled: Collection[str] = (),
    ) -> Validation:
        """Check the records of a stage, each by itself and against the others.

        `held_out` are the ids of those that are tested on, `unlabelled` of those that came without a target.
        """
        verdicts: list[Verdict] = []
        failures: list[Failure] = []
        repeated: list[Failure] = []
        frame = table(records, self._section, held_out, unlabelled)
        for result in self._run(stage, frame):
            config = result.expectation_config
            what, expected = config.meta["what"], config.meta["expected"]
            failed = [
                Failure(int(row["position"]), what, expected, _readable(row[config.kwargs["column"]]))
                for row in result.result.get("unexpected_index_list") or ()
            ]
            verdicts.append(
                Verdict(stage, what, expected, result.success, _found(result, failed, records), config.severity.value)
            )
            (repeated if config.type == "expect_column_values_to_be_unique" else failures).extend(failed)
        return Validation(verdicts, failures, repeated)

    def _run(self, stage: Stage, frame: Any) -> Sequence[Any]:
        """Results of the suite's expectations; an expectation that cannot be computed is an error of ours."""
        import great_expectations as gx

        context, title = self._context, f"{self._feature}-{stage}"
        batch = self._source.add_dataframe_asset(title).add_batch_definition_whole_dataframe("records")
        suite = context.suites.add_or_update(
            gx.ExpectationSuite(title, expectations=expectations(stage, self._section))
        )
        definition = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=title, data=batch, suite=suite)
        )
        checkpoint = context.checkpoints.add_or_update(
            gx.Checkpoint(
                name=title,
                validation_definitions=[definition],
                actions=[gx.checkpoint.UpdateDataDocsAction(name=DATA_DOCS, site_names=[DATA_DOCS])],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["position"]},
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": frame})
        (run,) = outcome.run_results.values()
        for result in run.results:
            if result.exception_info.get("raised_exception", True):
                raise RuntimeError(f"{result.expectation_config.to_json_dict()}: {result.exception_info}")
        return list(run.results)


def _found(result: Any, failed: Sequence[Failure], records: Sequence[Record]) -> str:
    """What an expectation found, in words: missing values, or rows that are otherwise and the first of their ids."""
    if "partial_missing_list" in result.result:
        missing = ", ".join(result.result["partial_missing_list"])
        return f"none for {missing}" if missing else "all"
    named = ", ".join(records[failure.position].id for failure in failed[:_NAMED])
    return f"{result.result['unexpected_count']} rows are not" + (f" ({named})" if named else "")


def _readable(value: Any) -> str:
    return f"{value:g}" if isinstance(value, numbers.Real) else str(value)
