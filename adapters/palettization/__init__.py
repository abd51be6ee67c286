"""The base release: sensitivities, codebooks, bits, accuracy recovery, and the stages that chain them."""
