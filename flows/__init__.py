"""Prefect flows and the command line: the sentences that the other rooms' words make."""
