"""The key-value cache of many answers that are generated side by side.

All rows share one time axis: the next token of every row is written to the same column, and a row's prompt ends just
before the column where its answer begins, so prompts of any length start together or join later. Measured reasons:
- DynamicCache concatenates, that is copies, every layer's whole cache at every token. Here columns are added 64 at a
  time, and those that no row needs any more are given back on the way.
- Rows lie one behind the other without gaps, because batched products over strided rows are nine times slower on CPU.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_COLUMNS = 64


class _Layer(CacheLayerMixin):
    """Keys and values of one layer: [rows, key heads, columns, head width], of which `used` rows are alive."""

    is_sliding = False

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.keys = like.new_zeros((0, like.shape[1], 0, like.shape[3]))
        self.values = self.keys
        self.column = 0
        self.is_initialized = True

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one token of each living row ([rows, heads, 1, width]); all columns of these rows."""
        rows = len(keys)
        self.keys[:rows, :, self.column] = keys[:, :, 0]
        self.values[:rows, :, self.column] = values[:, :, 0]
        return self.keys[:rows], self.values[:rows]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the cache allocates."""

    def get_seq_length(self) -> int:
        """Columns written so far."""
        return self.column

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """All columns: the caller's mask hides those that a row does not see."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """No limit: the cache grows."""
        return -1


class RowCache(Cache):
    """Cache of the decoding step. `length` columns are written, of `columns` allocated, for up to `rows` rows."""

    def __init__(self, prefilled: Cache) -> None:
        """An empty cache with the layers, heads, dtype and device of another."""
        super().__init__(layers=[_Layer(layer.keys) for layer in prefilled.layers])
        self.rows = 0
        self.columns = 0
        self.length = 0

    def reset(self, rows: int, length: int) -> None:
        """Room for `rows` rows, none of them alive; their prompts will end at column `length`."""
        self.rows = rows
        self._allocate(length, alive=0, first=0)

    def compact(self, alive: int, first: int) -> None:
        """Drop the columns before `first`, keep the first `alive` rows, and make room for more columns."""
        self._allocate(self.length - first, alive, first)

    def _allocate(self, length: int, alive: int, first: int) -> None:
        self.length = length
        self.columns = (length // _COLUMNS + 1) * _COLUMNS
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros((self.rows, old.shape[1], self.columns, old.shape[3]))
                if alive:
                    new[:alive, :, :length] = old[:alive, :, first : first + length]
                setattr(layer, name, new)
            layer.column = length

    def place(self, row: int, copies: int, prefilled: Cache, source: int, tokens: int) -> None:
        """Copy a prompt's `tokens` columns from row `source` of `prefilled` to `copies` rows, ending at `length`."""
        for mine, theirs in zip(self.layers, prefilled.layers, strict=True):
            for name in ("keys", "values"):
                target = getattr(mine, name)[row : row + copies, :, self.length - tokens : self.length]
                target.copy_(getattr(theirs, name)[source, :, :tokens])

    def move(self, source: int, target: int) -> None:
        """Let row `target` be what row `source` is."""
        for layer in self.layers:
            layer.keys[target, :, : self.length] = layer.keys[source, :, : self.length]
            layer.values[target, :, : self.length] = layer.values[source, :, : self.length]

    def advance(self) -> None:
        """Go on to the next column."""
        self.length += 1
        for layer in self.layers:
            layer.column = self.length

    def mask(self, starts: Tensor, dtype: torch.dtype) -> Tensor:
        """Additive mask [rows, 1, 1, columns]: row i sees columns from starts[i] up to the one now written."""
        columns = torch.arange(self.columns, device=starts.device)
        seen = (columns >= starts[:, None]) & (columns <= self.length)
        return torch.zeros(seen.shape, dtype=dtype, device=starts.device).masked_fill_(~seen, -torch.inf)[:, None, None]
