"""One way to load models, write prompts and generate text: used by synthesis, evaluation and `generate` alike."""
