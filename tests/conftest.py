"""One thread per test process: the tensors are tiny, and results then do not depend on the machine's load."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests share a process: those of one recipe, else those of one file, so that nothing is trained twice."""
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        name = params.get("case") or params.get("page")
        item.add_marker(pytest.mark.xdist_group(str(name or item.path.name)))
