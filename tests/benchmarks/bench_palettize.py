"""k-means palettization of all linear weights: ours against coreai-opt's KMeansPalettizer, both under sensitivities.

The same tensors, 4 bits, groups of 16 output channels, the same Fisher information as weights; the peer runs with two
workers, its own processes, so seconds are on the clock. Nothing but clustering is timed.
"""

import time

import torch
from coreai_opt.palettization import KMeansPalettizer, KMeansPalettizerConfig
from torch import Tensor, nn

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.codebooks import palettize
from adapters.palettization.layers import linear_names
from adapters.palettization.recipe import load_release_recipe
from adapters.palettization.sensitivities import fisher_diagonal
from tests.benchmarks.common import Figure, against, base_folder

ROUNDS = 3
BITS, GROUP_SIZE, WORKERS = 4, 16, 2


class Layers(nn.Module):
    """Linear layers side by side, as the peer wants them: in a module that it can run."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight in weights.values():
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of all layers' outputs for an input as wide as the widest."""
        return torch.stack([layer(x[:, : layer.in_features]).mean() for layer in self.layers]).mean()


def run() -> list[Figure]:
    """Medians of interleaved rounds."""
    folder = base_folder()
    model = load_model(folder, torch.float32)
    weights = {name: model.get_submodule(name).weight for name in linear_names(model.config.num_hidden_layers)}
    windows = load_release_recipe().calibration.text.windows(load_tokenizer(folder))
    sensitivities = fisher_diagonal(load_model(folder, torch.bfloat16), windows, seed=0)

    def error(dense: list[Tensor]) -> float:
        triples = zip(dense, weights.values(), sensitivities.values(), strict=True)
        return sum(((w - d).square() * s.float()).sum().item() / 2 for d, w, s in triples)

    def ours() -> list[Tensor]:
        made = [palettize(name, w, sensitivities[name], BITS, GROUP_SIZE) for name, w in weights.items()]
        return [one.dense(torch.float32) for one in made]

    layers = Layers(weights)
    palettizer = KMeansPalettizer(layers, KMeansPalettizerConfig.presets.w4(group_size=GROUP_SIZE))
    widest = max(w.shape[1] for w in weights.values())
    prepared = palettizer.prepare((torch.randn(1, widest),), num_workers=WORKERS)
    names = [f"layers.{number}.parametrizations.weight.original" for number in range(len(weights))]
    # As its calibration_mode ends, which would compute the sensitivities itself; its other door is a pickled file.
    palettizer._set_sensitivities_in_fake_palettize_modules(
        {name: s.float() for name, s in zip(names, sensitivities.values(), strict=True)}
    )

    def peer() -> list[Tensor]:
        palettizer._calculate_centroids_parallel(WORKERS)
        return [layer.weight.detach() for layer in prepared.layers]

    times: dict[str, list[float]] = {"ours": [], "peer": []}
    errors: dict[str, list[float]] = {"ours": [], "peer": []}
    ours()  # the first call chooses kernels
    for _ in range(ROUNDS):
        for side, work in (("ours", ours), ("peer", peer)):
            started = time.perf_counter()
            dense = work()
            times[side].append(time.perf_counter() - started)
            errors[side].append(error(dense))
    return [
        against("speed_vs_coreai_opt", "s", times["ours"], times["peer"], higher_is_better=False),
        against("weighted_error_vs_coreai_opt", "nats/token", errors["ours"], errors["peer"], higher_is_better=False),
    ]
