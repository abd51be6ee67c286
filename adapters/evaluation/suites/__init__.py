"""Suites beside a feature's own items: prompts from files, answers by the one generator, figures by rules."""
