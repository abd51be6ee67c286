"""k-means palettization of all linear weights: ours against coreai-opt's KMeansPalettizer, both under sensitivities.

The same tensors, 4 bits, groups of 16 output channels, the same Fisher information as weights; the peer runs with two
workers, its own processes, so seconds are on the clock. Nothing but clustering is timed, and the peer starts afresh in
every round: a second clustering of the same object begins at the first one's end.
"""

import time
from collections.abc import Iterable

import torch
from torch import Tensor

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.codebooks import Palettized, palettize
from adapters.palettization.layers import linear_names
from adapters.palettization.recipe import load_release_recipe
from adapters.palettization.sensitivities import fisher_diagonal
from infra.compute import Compute
from tests.benchmarks.common import Figure, against, base_folder
from tests.benchmarks.peers import CoreaiOpt

ROUNDS = 3
BITS, GROUP_SIZE = 4, 16


def run() -> list[Figure]:
    """Medians of interleaved rounds."""
    folder = base_folder()
    model = load_model(folder, torch.float32)
    weights = {name: model.get_submodule(name).weight for name in linear_names(model.config.num_hidden_layers)}
    windows = load_release_recipe().calibration.text.windows(load_tokenizer(folder))
    sensitivities = fisher_diagonal(load_model(folder, Compute().dtype), windows, seed=0)

    def error(dense: Iterable[Tensor]) -> float:
        triples = zip(dense, weights.values(), sensitivities.values(), strict=True)
        return sum(((w - d).square() * s.float()).sum().item() / 2 for d, w, s in triples)

    def ours() -> list[Palettized]:
        return [palettize(name, w, sensitivities[name], BITS, GROUP_SIZE) for name, w in weights.items()]

    times: dict[str, list[float]] = {"ours": [], "peer": []}
    errors: dict[str, list[float]] = {"ours": [], "peer": []}
    ours()  # the first call chooses kernels
    for _ in range(ROUNDS):
        started = time.perf_counter()
        made = ours()
        times["ours"].append(time.perf_counter() - started)
        errors["ours"].append(error(one.dense(torch.float32) for one in made))
        peer = CoreaiOpt(weights, BITS, GROUP_SIZE, sensitivities)
        started = time.perf_counter()
        peer.cluster()
        times["peer"].append(time.perf_counter() - started)
        errors["peer"].append(error(peer.dense().values()))
    return [
        against("speed_vs_coreai_opt", "s", times["ours"], times["peer"], higher_is_better=False),
        against("weighted_error_vs_coreai_opt", "nats/token", errors["ours"], errors["peer"], higher_is_better=False),
    ]
