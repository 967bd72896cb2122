"""Whether pictures show what the words ask: prompts of known things, and a classifier trained apart that looks at the answers.

Of the shapes: their shape, colour and place, for combinations that training held out and for some that it showed. Of digits by
name: the digit. The classifier never sees a run's pictures; it is trained on generated or real ones by a fixed recipe, is kept
in the cache, and its accuracy on real pictures is part of the result. For shapes it can also answer "none of these", which it
learned from empty pictures and pictures of two things.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engram.app.judge import VERSION, Eye, gather, learn, right
from engram.app.run import Run
from engram.app.shapes_judge import HEADS, Judge, keep, kept_at, recall, shapes_judge
from engram.checkpoint.files import write_json
from engram.core.batch import fold
from engram.core.errors import ConfigError
from engram.data import shapes
from engram.data.caption_spec import CaptionSpec
from engram.data.digit_names import SAYINGS, digit_caption
from engram.data.images import images
from engram.inference.pictures import Pictures
from engram.insight.intervals import wilson

LEAST = 48  # pictures of a group: below, a share says little
_SIZE_WORDS = {word for ways in shapes.SIZES.values() for word in ways if word}


@dataclass(frozen=True)
class Prompt:
    """`rows` pictures are asked for; `wanted` says what they shall show, by head."""

    group: str
    text: str
    wanted: dict[str, int]
    rows: int


def composition(
    run: Run, *, n: int = 480, seed: int = 0, chunk: int = 64, say: Callable[[str], None] = lambda _: None, **wishes: Any
) -> dict[str, Any]:
    """Shares of pictures that show what was asked, `n` of every group, as JSON values; written to RUN/composition.json.

    `wishes` (guidance, temperature, steps ...) go to `run.sample`. Raises ConfigError when the run takes no prompts, or was not
    trained on captions whose meaning is known.
    """
    spec, predictor = run.spec, run.predictor
    if not isinstance(spec, CaptionSpec) or not isinstance(predictor, Pictures) or "prompt" not in predictor.options:
        raise ConfigError(f"{run.path} makes no pictures of prompts; image_gpt and latent_diffusion do")
    if spec.source not in ("shapes", "digit_names", "mnist_names"):
        raise ConfigError(
            "what a picture must show is known of runs on shapes, digit_names and mnist_names only; look at your own pictures: "
            f"engram sample {run.path} --prompt ..."
        )
    if n < LEAST:
        raise ConfigError(f"n={n} must be at least {LEAST}: fewer pictures say little")
    prompts = _of_shapes(n, seed) if spec.source == "shapes" else _of_digits(n)
    predictor.ask(prompt=prompts[0].text, **wishes)  # before the judge is trained, which takes minutes
    begun = time.perf_counter()
    judge = shapes_judge(spec.height, say) if spec.source == "shapes" else digits_judge(spec, say)
    say(f"drawing {sum(p.rows for p in prompts):,} pictures of {len(prompts)} prompts")
    told: dict[str, list[dict[str, Any]]] = {}
    for number, prompt in enumerate(prompts):
        drawn = run.sample(prompt.rows, seed=fold(seed, "prompt", number), chunk=chunk, prompt=prompt.text, **wishes)
        x = torch.from_numpy(np.concatenate([part.arrays for part in drawn])).permute(0, 3, 1, 2)
        agree = {head: seen == prompt.wanted[head] for head, seen in judge.look(x).items() if head in prompt.wanted}
        told.setdefault(prompt.group, []).append({"prompt": prompt.text, "rows": prompt.rows} | agree)
    result = {
        "n": n, "seed": seed, "wishes": wishes, "judge": judge.about, "accuracy": judge.accuracy,
        "groups": {group: _figures(rows) for group, rows in told.items()}, "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip
    write_json(run.path / "composition.json", result)
    return result


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share with an interval of every head, of all that was asked together, and the prompts that failed most."""
    heads = list(dict.fromkeys(h for row in rows for h in row if h not in ("prompt", "rows")))
    whole = [torch.stack([row[h] for h in heads if h in row and h != "size"]).all(0) for row in rows]
    found: dict[str, Any] = {"rows": sum(row["rows"] for row in rows), "all": _share(whole)}
    found |= {head: _share([row[head] for row in rows if head in row]) for head in heads}
    failed = sorted(((int((~w).sum()), row) for w, row in zip(whole, rows, strict=True)), key=lambda pair: -pair[0])
    found["failed"] = [{"prompt": row["prompt"], "wrong": wrong, "rows": row["rows"]} for wrong, row in failed[:10] if wrong]
    return found


def _share(flags: Sequence[Tensor]) -> dict[str, float]:
    seen = torch.cat(list(flags))
    low, high = wilson(int(seen.sum()), len(seen))
    return {"value": float(seen.double().mean()), "low": low, "high": high}


def _of_shapes(n: int, seed: int) -> list[Prompt]:
    """Every held-out combination, and as many of those that training shows, in up to four phrasings each."""
    rng = np.random.default_rng([seed, 7])
    held, seen = shapes.combinations("test"), shapes.combinations("train")
    found = []
    for group, combos in (("held out", held), ("seen", [seen[i] for i in rng.permutation(len(seen))[: len(held)]])):
        for number, combo in enumerate(combos):
            rows = n // len(combos) + (number < n % len(combos))
            pieces = min(4, rows)
            for piece in range(pieces):
                size, *choose = (int(v) for v in rng.integers(1 << 30, size=3))
                scene = combo._replace(size=size % len(shapes.SIZES))
                text = shapes.caption(scene, (piece, *choose))
                wanted = dict(zip(HEADS, scene, strict=True))
                if not _SIZE_WORDS & set(text.split()):
                    del wanted["size"]
                found.append(Prompt(group, text, wanted, rows // pieces + (piece < rows % pieces)))
    return found


def _of_digits(n: int) -> list[Prompt]:
    """Every digit in every phrasing."""
    kinds = [(digit, saying) for digit in range(10) for saying in range(len(SAYINGS))]
    sizes = [n // len(kinds) + (i < n % len(kinds)) for i in range(len(kinds))]
    return [
        Prompt("digits", digit_caption(d, s), {"digit": d}, rows) for (d, s), rows in zip(kinds, sizes, strict=True) if rows
    ]


def digits_judge(spec: CaptionSpec, say: Callable[[str], None] = lambda _: None) -> Judge:
    """The classifier of handwritten digits, as engram.app.judge trains it, on the training pictures of the plain set; from the
    cache, or trained now and kept there."""
    name = {"digit_names": "digits", "mnist_names": "mnist"}[spec.source]
    data = images(name, batch=64, size=spec.height)
    path = kept_at("digits", data.summary.sha256, spec.height, VERSION)
    eye = Eye((spec.channels, spec.height, spec.width), 10).eval()
    facts = recall(path, eye)
    if not facts:
        say(f"training the judge of {name}, which is then kept in {path.parent}")
        (x, y), (x_test, y_test) = gather(data, "train", 60_000), gather(data, "test", 10_000)
        assert y is not None
        assert y_test is not None
        eye = learn(x, y, 10)
        facts = {"rows": len(x), "tested": len(x_test), "accuracy": right(eye, x_test, y_test) / len(x_test)}
        keep(path, eye, facts, say)
    about = (
        f"a CNN of our own, trained on {facts['rows']:,} real pictures of {name}; {facts['accuracy']:.2%} of "
        f"{facts['tested']:,} test pictures right"
    )

    @torch.no_grad()
    def look(pictures: Tensor) -> dict[str, Tensor]:
        return {"digit": torch.cat([eye(part).argmax(1) for part in pictures.split(250)])}

    return Judge(about, look, {"digit": facts["accuracy"]})
