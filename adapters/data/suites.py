"""The Great Expectations suites of a feature, one a stage, generated from its recipe; and the table that they check.

- `raw`, what came in: ids, use cases, sources, licences. A row that fails is quarantined.
- `cleaned`, what cleaning left: inputs unique, nothing decoded wrongly, sane lengths, known labels. A row that fails is
  quarantined; one whose input is there already is removed as a duplicate.
- `synthetic`, what a teacher wrote: a target for each of some records of the training side that had none. A failure
  stops the feature; lengths that the recipe does not expect of people only show in the Data Docs.
- `training`, what is trained and tested on: each use case and label covered, no text on both sides. A failure stops the
  feature.

The table holds counts, labels and digests of the records, never their text: Data Docs are shown to more people than the
data is. Every expectation carries in `meta` what it is about and what it expects in words; failures are told in those.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any, Literal

from adapters.recipe import DataSection
from adapters.records import Record, text_digest

Stage = Literal["raw", "cleaned", "synthetic", "training"]
Severity = Literal["warning", "critical"]
# What a text holds that was decoded wrongly, and control characters other than tab and line ends.
_BROKEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")


def expectations(stage: Stage, section: DataSection) -> list[Any]:
    """The suite of a stage."""
    return _SUITES[stage](section)


def _raw(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe

    use_cases = sorted(section.use_cases)
    return [
        gxe.ExpectColumnValuesToBeUnique(column="id", **_about("id", "no other record with this id")),
        gxe.ExpectColumnValuesToBeInSet(
            column="use_case", value_set=use_cases, **_about("use case", f"one of {', '.join(use_cases)}")
        ),
        gxe.ExpectColumnValueLengthsToBeBetween(column="source", min_value=1, **_about("source", "a source")),
        gxe.ExpectColumnValueLengthsToBeBetween(column="license", min_value=1, **_about("license", "a license")),
    ]


def _cleaned(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe

    unique = _about("input", "no other record with this input")
    return [gxe.ExpectColumnValuesToBeUnique(column="input", **unique), *_texts(section, "warning")]


def _synthetic(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe

    known = _about("record", "one of the training side that was without target", "critical")
    return [
        gxe.ExpectColumnValuesToBeUnique(column="id", **_about("id", "no other record with this id", "critical")),
        gxe.ExpectColumnValuesToBeInSet(column="unlabelled", value_set=[True], **known),
        gxe.ExpectColumnValuesToNotBeNull(column="longest_target_words", **_about("target", "a target", "critical")),
        *_texts(section, "warning"),
    ]


def _training(section: DataSection) -> list[Any]:
    import great_expectations.expectations as gxe

    promised = {"use_case": sorted(section.use_cases)} | ({"label": section.labels} if section.labels else {})
    one_side = _about("input", "a text that is trained on or tested on, not both", "critical")
    return [
        *(
            gxe.ExpectColumnDistinctValuesToContainSet(
                column=column,
                value_set=values,
                **_about(column.replace("_", " "), f"records for each of {', '.join(values)}", "critical"),
            )
            for column, values in promised.items()
        ),
        gxe.ExpectColumnValuesToBeBetween(column="sides", max_value=1, **one_side),
    ]


def _texts(section: DataSection, severity: Severity) -> list[Any]:
    """What holds for every text: nothing decoded wrongly, sane lengths, known labels."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    suite: list[Any] = [
        gxe.ExpectColumnValuesToBeBetween(
            column="broken_characters",
            max_value=0,
            **_about("undecodable or control characters", "none", severity),
        )
    ]
    for name, use_case in sorted(section.use_cases.items()):
        only = Column("use_case") == name
        for column, (low, high) in (
            ("input_words", use_case.input_words),
            ("shortest_target_words", use_case.target_words),
            ("longest_target_words", use_case.target_words),
        ):
            words = _about(f"{column.replace('_', ' ')} ({name})", f"{low} to {high}", severity)
            suite.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=column, min_value=low, max_value=high, row_condition=only, **words
                )
            )
    if section.labels is not None:
        known = _about("target", f"one of {', '.join(section.labels)}", severity)
        suite.append(gxe.ExpectColumnValuesToBeInSet(column="label", value_set=section.labels, **known))
    return suite


_SUITES = {"raw": _raw, "cleaned": _cleaned, "synthetic": _synthetic, "training": _training}


def _about(what: str, expected: str, severity: Severity = "warning") -> dict[str, Any]:
    return {"severity": severity, "meta": {"what": what, "expected": expected}}


def table(
    records: Sequence[Record],
    section: DataSection,
    held_out: Collection[str] = (),
    unlabelled: Collection[str] = (),
) -> Any:
    """The pandas frame to validate, a row per record. `held_out` and `unlabelled` are ids."""
    import pandas as pd

    sides: dict[str, set[bool]] = {}
    digests = [text_digest(record.input)[:32] for record in records]
    for record, digest in zip(records, digests, strict=True):
        sides.setdefault(digest, set()).add(record.id in held_out)
    rows = []
    for position, (record, digest) in enumerate(zip(records, digests, strict=True)):
        labelled = record.target is not None
        lengths = [len(target.split()) for target in record.targets] or [0]
        rows.append(
            {
                "position": position,
                "id": record.id,
                "use_case": record.use_case,
                "source": record.source,
                "license": record.license,
                "input": f"{record.use_case}:{digest}",
                "sides": len(sides[digest]),
                "unlabelled": record.id in unlabelled,
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
    "sides",
    "unlabelled",
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
