"""Memory of tensors, counted exactly on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made inside its ``with`` block, exactly and on any device.

    ``peak`` is the most that were alive after any one operation. What a kernel holds while it runs is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._live: dict[int, tuple[Any, int]] = {}  # weak references, which torch does not type

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        weak: Any = StorageWeakRef
        made = func(*args, **(kwargs or {}))
        given = {id_ for leaf in tree_leaves((args, kwargs)) if (id_ := _storage(leaf)) is not None}
        for leaf in tree_leaves(made):
            key = _storage(leaf)
            if key is not None and key not in given:
                storage = leaf.untyped_storage()
                self._live[key] = (weak(storage), storage.nbytes())
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return made


def _storage(leaf: Any) -> int | None:
    """What tells one tensor's memory from another's while both are alive; None where there is none, as on ``meta``."""
    real = isinstance(leaf, torch.Tensor) and leaf.device.type != "meta"
    return leaf.untyped_storage()._cdata if real else None
