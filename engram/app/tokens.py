"""What a number of tokens costs a given run: multiply-adds to read them, and the memory of the cache that holds them."""

from __future__ import annotations

from typing import Any

from engram.app.run import Run
from engram.inference.generate import Generator


def token_cost(run: Run, count: int) -> dict[str, Any]:
    """{"multiply_adds", "cache_bytes", "context", "sentences"}; None where the network has no such figure."""
    parameters = sum(p.numel() for p in run.model.parameters())
    per_token = getattr(run.model, "cost", None)
    try:
        work = per_token() * count if per_token else parameters * count
    except TypeError:  # a cost per row of a given length
        work = parameters * count
    cache = None
    if isinstance(run.predictor, Generator):
        held = run.predictor.model.new_cache(1, max(min(count, run.spec.to_json()["context"]), 1))  # type: ignore[operator]
        data = getattr(held, "data", None)
        cache = data.numel() * data.element_size() if data is not None else None
    context = run.spec.to_json().get("context")
    sentences = [f"reading them takes about {work / 1e6:,.1f} million multiply-adds"]
    if cache is not None:
        sentences.append(f"keys and values of them take {cache / 1024:,.1f} KiB while generating")
    if context and count > context:
        sentences.append(f"the run sees {context:,} tokens at once: the first {count - context:,} are left out")
    return {"multiply_adds": int(work), "cache_bytes": cache, "context": context, "sentences": sentences}
