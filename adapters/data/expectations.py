"""What a feature's records must be: Great Expectations suites generated from its recipe, and their checkpoints.

Notable choices:
- Two suites: `rows` over everything that came in (a row that fails is quarantined and the feature goes on), then
  `coverage` over what is left (a failure there is critical and stops the feature).
- The table that is checked holds counts, labels and digests of the records, never their text: Data Docs are shown to
  more people than the data is.
- Every expectation carries in `meta` what it is about and what it expects in words; failures are told in those.
"""

import logging
import numbers
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.recipe import DataSection
from adapters.records import Record, text_digest

# What a text holds that was decoded wrongly, and control characters other than tab and line ends.
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_SITE = "data_docs"


@dataclass(frozen=True)
class Verdict:
    """What came of one expectation: about what, what was expected, what was found, in words."""

    what: str
    expected: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Failure:
    """A record, by its position, that breaks an expectation: about what, what was expected, what was found."""

    position: int
    what: str
    expected: str
    found: str


@dataclass(frozen=True)
class RowValidation:
    """The outcome of the `rows` suite. `repeated` lists **all** rows that share a value that must be unique."""

    verdicts: list[Verdict]
    failures: list[Failure]
    repeated: list[Failure]


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
            _SITE,
            {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": store,
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
        self._source = self._context.data_sources.add_pandas(feature)

    def check_rows(self, records: Sequence[Record]) -> RowValidation:
        """Check every record by itself and against the others."""
        verdicts: list[Verdict] = []
        failures: list[Failure] = []
        repeated: list[Failure] = []
        for result in self._run("rows", _row_expectations(self._section), records):
            config, found = result.expectation_config, result.result
            what, expected = config.meta["what"], config.meta["expected"]
            verdicts.append(Verdict(what, expected, result.success, f"{found['unexpected_count']} rows are not"))
            into = repeated if config.type == "expect_column_values_to_be_unique" else failures
            column = config.kwargs["column"]
            for row in found["unexpected_index_list"]:
                into.append(Failure(int(row["position"]), what, expected, _readable(row[column])))
        return RowValidation(verdicts, failures, repeated)

    def check_coverage(self, records: Sequence[Record]) -> list[Verdict]:
        """Check that the records cover what the recipe promises."""
        verdicts = []
        for result in self._run("coverage", _coverage_expectations(self._section), records):
            about = result.expectation_config.meta
            missing = ", ".join(result.result["partial_missing_list"])
            found = f"none for {missing}" if missing else "all"
            verdicts.append(Verdict(about["what"], about["expected"], result.success, found))
        return verdicts

    def _run(self, name: str, expectations: list[Any], records: Sequence[Record]) -> Sequence[Any]:
        """Results of the suite's expectations; an expectation that cannot be computed is an error of ours."""
        import great_expectations as gx

        # Its import lets this one tell of a temporary folder at every checkpoint.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        context, title = self._context, f"{self._feature}-{name}"
        batch = self._source.add_dataframe_asset(title).add_batch_definition_whole_dataframe("records")
        suite = context.suites.add_or_update(gx.ExpectationSuite(title, expectations=expectations))
        definition = context.validation_definitions.add_or_update(
            gx.ValidationDefinition(name=title, data=batch, suite=suite)
        )
        checkpoint = context.checkpoints.add_or_update(
            gx.Checkpoint(
                name=title,
                validation_definitions=[definition],
                actions=[gx.checkpoint.UpdateDataDocsAction(name=_SITE, site_names=[_SITE])],
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["position"]},
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": _table(records, self._section)})
        (run,) = outcome.run_results.values()
        for result in run.results:
            if result.exception_info.get("raised_exception", True):
                raise RuntimeError(f"{result.expectation_config.to_json_dict()}: {result.exception_info}")
        return list(run.results)


def _row_expectations(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    def about(what: str, expected: str) -> dict[str, Any]:
        return {"severity": "warning", "meta": {"what": what, "expected": expected}}

    use_cases = sorted(section.use_cases)
    suite: list[Any] = [
        gxe.ExpectColumnValuesToBeUnique(column="id", **about("id", "no other record with this id")),
        gxe.ExpectColumnValuesToBeUnique(column="input", **about("input", "no other record with this input")),
        gxe.ExpectColumnValuesToBeInSet(
            column="use_case", value_set=use_cases, **about("use case", f"one of {', '.join(use_cases)}")
        ),
        gxe.ExpectColumnValueLengthsToBeBetween(column="source", min_value=1, **about("source", "a source")),
        gxe.ExpectColumnValueLengthsToBeBetween(column="license", min_value=1, **about("license", "a license")),
        gxe.ExpectColumnValuesToBeBetween(
            column="broken_characters", max_value=0, **about("undecodable or control characters", "none")
        ),
    ]
    for name, use_case in sorted(section.use_cases.items()):
        only = Column("use_case") == name
        for column, (low, high) in (
            ("input_words", use_case.input_words),
            ("shortest_target_words", use_case.target_words),
            ("longest_target_words", use_case.target_words),
        ):
            words = about(f"{column.replace('_', ' ')} ({name})", f"{low} to {high}")
            suite.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=column, min_value=low, max_value=high, row_condition=only, **words
                )
            )
    if section.labels is not None:
        known = about("target", f"one of {', '.join(section.labels)}")
        suite.append(gxe.ExpectColumnValuesToBeInSet(column="label", value_set=section.labels, **known))
    return suite


def _coverage_expectations(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe

    promised = {"use_case": sorted(section.use_cases)} | ({"label": section.labels} if section.labels else {})
    return [
        gxe.ExpectColumnDistinctValuesToContainSet(
            column=column,
            value_set=values,
            severity="critical",
            meta={"what": column.replace("_", " "), "expected": f"records for each of {', '.join(values)}"},
        )
        for column, values in promised.items()
    ]


def _table(records: Sequence[Record], section: DataSection) -> Any:
    """The pandas frame to validate, a row per record."""
    import pandas as pd

    rows = []
    for position, record in enumerate(records):
        labelled = record.target is not None
        lengths = [len(target.split()) for target in record.targets] or [0]
        rows.append(
            {
                "position": position,
                "id": record.id,
                "use_case": record.use_case,
                "source": record.source,
                "license": record.license,
                "input": f"{record.use_case}:{text_digest(record.input)[:32]}",
                "input_words": len(record.input.split()),
                "broken_characters": len(_BROKEN.findall("\n".join([record.input, *record.targets]))),
                "shortest_target_words": min(lengths) if labelled else None,
                "longest_target_words": max(lengths) if labelled else None,
                "label": _label(record, section.labels) if labelled and section.labels else None,
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = [
    "position",
    "id",
    "use_case",
    "source",
    "license",
    "input",
    "input_words",
    "broken_characters",
    "shortest_target_words",
    "longest_target_words",
    "label",
]


def _label(record: Record, labels: Sequence[str]) -> str:
    """The record's label; of several targets, the first that is none of the labels if there is one."""
    wrong = [target for target in record.targets if target not in labels]
    return (wrong or record.targets or [""])[0]


def _readable(value: Any) -> str:
    return f"{value:g}" if isinstance(value, numbers.Real) else str(value)
