"""Where base models come from, one file per kind; `infra/sources.py` is the door."""
