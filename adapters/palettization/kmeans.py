"""Weighted k-means of many groups at once: of single values, exact but for the cells that it starts from, and of pairs.

Notable choices:
- In one dimension the clusters are intervals of the sorted values, so all work after the sort is on prefix sums, for
  all groups of a tensor at once. Lloyd's algorithm alone ends in poor optima here, because a few weights with large
  gradients far from the rest decide the error: on SmolLM2-135M its error was up to 1.6 times the optimum. From the
  dynamic program over 64 cells it is within 0.5% of it.
- Pairs start from the grid of both coordinates' optimal levels and take a few steps of Lloyd's algorithm, each a matrix
  product: the error-compensating assignment moves them anyway.
"""

import torch

_CELLS = 64
_MAX_ITERATIONS = 500
_PAIR_STEPS = 8
_GROUPS_AT_ONCE = 4
_TINY = 1e-300


def nearest(values: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Index of the nearest centroid for each value: [groups, n] and ascending [groups, k] give int64 [groups, n]."""
    return torch.searchsorted(_midpoints(centroids), values)


def weighted_kmeans(values: torch.Tensor, weights: torch.Tensor, k: int) -> torch.Tensor:
    """Weighted 1-D k-means of each row: [groups, n] twice, weights above zero → ascending centroids fp32 [groups, k].

    The sorted values are cut into cells, the best k runs of cells are found exactly by dynamic programming (Wang and
    Song 2011, Ckmeans.1d.dp), and Lloyd's algorithm moves single values from there until none changes its cluster.
    """
    ordered, order = values.sort(dim=1)
    ordered_weights = weights.gather(1, order).double()
    mass = _prefix_sums(ordered_weights)
    moment = _prefix_sums(ordered_weights * ordered)
    edges = _best_runs(_cells(ordered, ordered_weights), mass, moment, k)
    centroids = ordered.gather(1, edges[:, :-1].clamp_max(values.shape[1] - 1)).double()
    for _ in range(_MAX_ITERATIONS):
        in_cluster, moments = mass.gather(1, edges).diff(dim=1), moment.gather(1, edges).diff(dim=1)
        # An empty cluster keeps its centroid: it still lies between its neighbours.
        centroids = torch.where(in_cluster > 0, moments / in_cluster.clamp_min(_TINY), centroids)
        splits = torch.searchsorted(ordered, _midpoints(centroids).to(ordered.dtype))
        moved = torch.cat([edges[:, :1], splits, edges[:, -1:]], dim=1)
        if torch.equal(moved, edges):
            break
        edges = moved
    return centroids.float()


def _cells(ordered: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Edges [groups, _CELLS + 1] of cells in the sorted values, as fine as an optimal quantiser would have them.

    Its density is the cube root of weight times density (Panter and Dite 1951), so between two neighbours the weight's
    cube root times the gap's to the power 2/3: outliers get cells of their own, as few and heavy as they may be.
    """
    between = (weights[:, 1:] + weights[:, :-1]) / 2
    fineness = _prefix_sums(between.pow(1 / 3) * ordered.double().diff(dim=1).pow(2 / 3))
    levels = torch.arange(1, _CELLS, dtype=torch.float64, device=ordered.device) / _CELLS
    inner = torch.searchsorted(fineness, fineness[:, -1:] * levels)
    first = torch.zeros(len(ordered), 1, dtype=torch.int64, device=ordered.device)
    return torch.cat([first, inner, torch.full_like(first, ordered.shape[1])], dim=1)


def _best_runs(cells: torch.Tensor, mass: torch.Tensor, moment: torch.Tensor, k: int) -> torch.Tensor:
    """Edges [groups, k + 1] of the k runs of cells that explain most of the weighted square."""
    cell_mass, cell_moment = mass.gather(1, cells), moment.gather(1, cells)
    # explained[:, j, i] of the run from edge i to edge j; no run ends before it begins.
    moments = cell_moment.unsqueeze(2) - cell_moment.unsqueeze(1)
    masses = cell_mass.unsqueeze(2) - cell_mass.unsqueeze(1)
    explained = moments.square() / masses.clamp_min(_TINY)
    explained.masked_fill_(torch.ones_like(explained[0], dtype=torch.bool).triu(1), -torch.inf)
    best = explained[:, :, 0]
    beginnings = []
    for _ in range(k - 1):
        best, beginning = (best.unsqueeze(1) + explained).max(dim=2)
        beginnings.append(beginning)
    edge = torch.full_like(cells[:, :1], cells.shape[1] - 1)
    chosen = [edge]
    for beginning in reversed(beginnings):
        edge = beginning.gather(1, edge)
        chosen.append(edge)
    return cells.gather(1, torch.cat([torch.zeros_like(edge), *reversed(chosen)], dim=1))


def _midpoints(centroids: torch.Tensor) -> torch.Tensor:
    return (centroids[:, 1:] + centroids[:, :-1]) / 2


def _prefix_sums(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(values.cumsum(1), (1, 0))


def pair_kmeans(pairs: torch.Tensor, weights: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted k-means of pairs: [groups, n, 2] twice → centroids fp16 [groups, k, 2] and indices int64 [groups, n].

    Lloyd's algorithm for a fixed number of steps, from the grid of `levels` [groups, sqrt(k)] in both coordinates.
    """
    k = levels.shape[1] ** 2
    start = torch.stack([levels.repeat_interleave(levels.shape[1], dim=1), levels.repeat(1, levels.shape[1])], dim=2)
    found = []
    for some, some_weights, centroids in zip(
        pairs.split(_GROUPS_AT_ONCE), weights.split(_GROUPS_AT_ONCE), start.split(_GROUPS_AT_ONCE), strict=True
    ):
        # The distance but for a constant, as one product: w (x - c)^2 = w x^2 - 2 w x c + w c^2.
        features = torch.cat([some_weights * some, some_weights], dim=2)
        for _ in range(_PAIR_STEPS):
            indices = _nearest_pair(features, centroids)
            places = indices.unsqueeze(2).expand(-1, -1, 4)
            sums = torch.zeros(len(some), k, 4, device=pairs.device).scatter_add_(1, places, features)
            moments, masses = sums.split(2, dim=2)
            centroids = torch.where(masses > 0, moments / masses.clamp_min(1e-30), centroids)
        centroids = centroids.to(torch.float16)
        found.append((centroids, _nearest_pair(features, centroids.float())))
    return torch.cat([centroids for centroids, _ in found]), torch.cat([indices for _, indices in found])


def _nearest_pair(features: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    return (features @ torch.cat([-2 * centroids, centroids.square()], dim=2).transpose(1, 2)).argmin(2)
