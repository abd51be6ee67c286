"""Tests of an adapter on held-out records: metrics, the comparison of systems, gates and the report page."""
