"""The shipped features: a folder each, with a recipe and a corpus."""
