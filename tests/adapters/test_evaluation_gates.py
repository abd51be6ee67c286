"""Both sides of every threshold, and a report that cannot be changed unseen."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.gates import GateReport, at_least, at_most, bounded, exceeds
from adapters.evaluation.interval import Interval
from infra.errors import FactoryError


def test_thresholds_from_both_sides() -> None:
    assert at_least("psnr", 50.0, 50.0).passed
    assert not at_least("psnr", 49.999, 50.0).passed
    assert at_most("size", 16.0, 16.0).passed
    assert not at_most("size", 16.001, 16.0).passed
    assert bounded("gain", Interval(0.3, 0.21, 0.4), 0.2, ">").passed
    assert not bounded("gain", Interval(0.3, 0.2, 0.4), 0.2, ">").passed
    assert bounded("gain", Interval(0.3, 0.2, 0.4), 0.2, ">=").passed
    assert not bounded("gain", Interval(0.3, 0.199, 0.4), 0.2, ">=").passed
    assert bounded("share", Interval(0.1, 0.0, 0.2), 0.2, "<=").passed
    assert not bounded("share", Interval(0.1, 0.0, 0.201), 0.2, "<=").passed
    assert exceeds("gain", Interval(0.21, 0.1, 0.4), 0.2).passed
    assert not exceeds("gain", Interval(0.2, 0.1, 0.4), 0.2).passed


def test_a_figure_that_is_no_number_never_passes_and_an_infinite_one_is_compared() -> None:
    assert not at_least("psnr", math.nan, 50.0).passed
    assert not at_most("kl", math.nan, 0.2).passed
    assert not at_most("kl", math.inf, 0.2).passed
    identical = at_least("psnr", math.inf, 50.0)
    assert identical.passed and identical.figure is None and "inf" in identical.detail
    GateReport("base", [identical], {}).to_json()


def test_a_gate_says_by_how_much() -> None:
    gate = at_least("score", 0.19, 0.2)
    assert gate.detail == "0.19 misses >= 0.2 by 0.01"
    assert (gate.threshold, gate.comparison) == (0.2, ">=")


def test_a_report_passes_only_if_every_gate_does() -> None:
    good, bad = at_least("a", 1, 0), at_most("b", 1, 0)
    assert GateReport("writing", [good], {}).passed
    report = GateReport("writing", [good, bad], {})
    assert not report.passed and report.failed == [bad]
    assert not GateReport("writing", [], {}).passed


@given(st.floats(allow_nan=False, allow_infinity=False), st.dictionaries(st.text(), st.floats(-1e9, 1e9), max_size=4))
def test_json_keeps_a_report_and_its_digest(figure: float, figures: dict[str, float]) -> None:
    report = GateReport("base", [at_most("kl", figure, 0.2)], figures)
    again = GateReport.from_json(report.to_json())
    assert again == report and again.digest == report.digest


def test_a_changed_verdict_is_noticed() -> None:
    content = json.loads(GateReport("writing", [at_most("size", 20, 16)], {}).to_json())
    content["gates"][0]["passed"] = content["passed"] = True
    with pytest.raises(FactoryError, match="changed after it was written"):
        GateReport.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"subject": "x", "gates": [{"name": "y"}], "figures": {}}'])
def test_what_is_no_report_is_told_in_one_line(text: str) -> None:
    with pytest.raises(FactoryError, match="not a gate report"):
        GateReport.from_json(text)


def test_a_warning_stops_nothing_and_is_named() -> None:
    good, bad = at_least("a", 1, 0), at_most("b", 1, 0, severity="warn")
    report = GateReport("writing", [good, bad], {"x": 2.0})
    assert report.passed and report.failed == [] and report.warnings == [bad]
    assert GateReport.from_json(report.to_json()) == report
    assert report.metrics == {
        "x": 2.0, "gate.a.figure": 1.0, "gate.a.threshold": 0.0, "gate.a.passed": 1.0,
        "gate.b.figure": 1.0, "gate.b.threshold": 0.0, "gate.b.passed": 0.0,
    }  # fmt: skip


def test_a_report_from_before_intervals_and_severities_keeps_its_digest() -> None:
    content = json.loads(GateReport("base", [at_most("kl", 0.1, 0.2)], {"kl": 0.1}).to_json())
    assert content["gates"][0].keys() == {"name", "passed", "figure", "threshold", "comparison", "detail"}
