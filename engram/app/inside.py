"""engram inspect: attention maps, token probabilities and saliency of one text, as JSON values and as a picture."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engram.app.layers import RECIPE_ERRORS
from engram.app.run import Run
from engram.checkpoint.files import write_json
from engram.core.batch import Batch, to_device
from engram.core.data import Data
from engram.core.errors import ConfigError, DataError, EngramError
from engram.data.vocabulary import END, MASK, START
from engram.inference.answer import Answerer
from engram.inference.generate import Generator
from engram.inference.masked_fill import MaskFiller
from engram.insight.inside import Inside, look_inside
from engram.models.seq2seq import Seq2Seq

TOP = 5
MOST = 64  # tokens whose names are drawn


def inside(run: Run, text: Any, *, layer: int | None = None, head: int | None = None, answer: str = "") -> dict[str, Any]:
    """{"tokens", "layers", "layer", "heads", "head", "attention" (T, S), "keys", "saliency", "answer", "probabilities"}.

    `layer` and `head` count from 1; the last layer and the mean of its heads if not given. `answer`, the next token or a class,
    is what the saliency explains; the most probable if not given. Raises DataError and ConfigError.
    """
    spec: Any = run.spec
    vocabulary = getattr(spec, "vocabulary", None) or getattr(spec, "source_vocabulary", None)
    if vocabulary is None:
        raise ConfigError(f"{run.path} does not read text, so there are no tokens to look at")
    device = next(run.task.parameters()).device
    batch = to_device(spec.encode([text]), device)
    names: dict[str, list[str]] = {}
    key = "source" if "source" in batch else "tokens"
    if key == "source":
        batch = _with_target(run, batch, text, device)
        target = getattr(spec, "target_vocabulary", vocabulary)
        names["target"] = [target.piece(i) for i in batch["target"][0, :-1].tolist()]
    batch = {name: t[:1] for name, t in batch.items()}
    context = spec.to_json().get("context") or batch[key].shape[1]
    if batch[key].shape[1] > context:
        raise DataError(f"the text has {batch[key].shape[1]} tokens and the run sees {context} at once; give a shorter one")
    names[key] = [vocabulary.piece(i) for i in batch[key][0].tolist()]
    said: list[str] = []

    def score(output: Tensor) -> Tensor:
        value, name = _explained(run, batch, output, answer, text)
        said.append(name)
        return value

    def forward() -> Tensor:
        if not isinstance(run.predictor, MaskFiller):
            return run.task(batch)
        places = batch["tokens"] == MASK  # such a model gives logits of chosen places only
        if not places.any():
            raise DataError("this run fills in hidden tokens: put <mask> where one is hidden")
        return run.model(batch["tokens"], batch["lengths"], places)

    seen = look_inside(run.task, forward, batch[key], score)
    if isinstance(run.model, Seq2Seq):  # its attention is a layer of its own, which tells its weights
        with torch.no_grad():
            weights = run.model.attend(batch["source"], batch["source_lengths"], batch["target"][:, :-1])[1]
        seen = dataclasses.replace(seen, attention={"model.attention": weights[:1, :, :].cpu()})
    chance = {"text": said[0], "probability": round(math.exp(seen.score), 6)}
    found: dict[str, Any] = {"tokens": names[key], "layers": list(seen.attention), "answer": chance}
    found["saliency"] = None if seen.saliency is None else [round(float(v), 6) for v in seen.saliency]
    found |= _map(seen, names, key, layer, head)
    if isinstance(run.predictor, Generator):
        found["probabilities"] = _probabilities(seen.output[0], batch[key][0], vocabulary)
    return found


def _with_target(run: Run, batch: Batch, text: Any, device: torch.device) -> Batch:
    """The source with what the run itself makes of it, so that the decoder has something to read."""
    spec: Any = run.spec
    (wrote,) = run.predict([text])["text"]  # type: ignore[index]
    target = getattr(spec, "target_vocabulary", None) or spec.vocabulary
    ids = [START, *target.encode(wrote), END]
    return batch | {"target": torch.tensor([ids], device=device), "target_lengths": torch.tensor([len(ids)], device=device)}


def _explained(run: Run, batch: Batch, output: Tensor, answer: str, text: Any) -> tuple[Tensor, str]:
    """(log probability of the answer, its name): of a class, the tags, a span, the text written, or the next token."""
    logs, predictor = output.float().log_softmax(-1), run.predictor
    classes = getattr(predictor, "classes", None)
    if classes:
        number = _among(classes, answer) if answer else int(logs[0].argmax())
        return logs[0, number], classes[number]
    if answer and not isinstance(predictor, Generator):
        raise ConfigError("answer= chooses a class or a next token; this run gives neither, so leave it out")
    if tags := getattr(predictor, "tags", None):
        best = logs[0].max(-1)
        return best.values.sum(), " ".join(tags[i] for i in best.indices.tolist())
    if isinstance(predictor, Answerer):
        places = output[0].float().log_softmax(0)  # (T, 2): where the answer begins and ends
        return places[:, 0].max() + places[:, 1].max(), str(run.predict([text])["text"][0])  # type: ignore[index]
    vocabulary = getattr(run.spec, "target_vocabulary", None) or run.spec.vocabulary  # type: ignore[attr-defined]
    if "target" in batch:
        wrote = batch["target"][0, 1:]
        return logs[0].gather(1, wrote[:, None]).sum(), vocabulary.decode(wrote.tolist())
    last = logs[0, -1] if output.dim() == 3 else logs[0]
    number = vocabulary.encode(answer)[0] if answer else int(last.argmax())
    return last[number], vocabulary.piece(number)


def _among(classes: Sequence[str], answer: str) -> int:
    if answer not in classes:
        raise ConfigError(f"answer={answer!r} is none of the classes {', '.join(classes[:10])}")
    return list(classes).index(answer)


def _map(seen: Inside, names: dict[str, list[str]], key: str, layer: int | None, head: int | None) -> dict[str, Any]:
    layers = list(seen.attention)
    if not layers:
        return {"attention": None}
    at = len(layers) if layer is None else layer
    if not 1 <= at <= len(layers):
        raise ConfigError(f"layer={layer}: this network has {len(layers)} attention layers, counted from 1")
    weights = seen.attention[layers[at - 1]]  # (H, T, S)
    if head is not None and not 1 <= head <= len(weights):
        raise ConfigError(f"head={head}: that layer has {len(weights)} heads, counted from 1")
    shown = weights.mean(0) if head is None else weights[head - 1]
    by_size = {len(v): v for v in reversed(list(names.values()))}
    rows, columns = (by_size.get(n, [str(i) for i in range(n)]) for n in shown.shape)
    return {
        "layer": at, "layer_name": layers[at - 1], "heads": len(weights), "head": head, "queries": rows, "keys": columns,
        "attention": [[round(float(v), 5) for v in row] for row in shown],
    }  # fmt: skip


def _probabilities(logits: Tensor, tokens: Tensor, vocabulary: Any) -> list[dict[str, Any]]:
    """Of every token after the first: its probability given those before it, and the most probable ones in its place."""
    chances = logits.float().softmax(-1)
    found = []
    for at in range(1, len(tokens) + 1):
        best = chances[at - 1].topk(min(TOP, chances.shape[1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        entry: dict[str, Any] = {"alternatives": [{"token": vocabulary.piece(i), "probability": round(p, 6)} for i, p in pairs]}
        if at < len(tokens):
            number = int(tokens[at])
            entry = {"token": vocabulary.piece(number), "probability": round(float(chances[at - 1, number]), 6)} | entry
        found.append(entry)
    return found


def write_inside(run: Run, data: Data) -> None:
    """inside.json: a look at one short row of the data, for the report. Nothing for runs without tokens or attention."""
    if not hasattr(run.spec, "vocab"):
        return
    split = next((s for s in ("val", "test", "train") if data.size(s)), "train")
    try:
        (raw,) = data.raw(split, [0])
        given = raw[:80] if isinstance(raw, str) else raw
        found = inside(run, given)
    except (EngramError, *RECIPE_ERRORS):
        return
    if len(found["tokens"]) <= MOST:
        write_json(run.folder.path / "inside.json", found)


def draw(found: dict[str, Any]) -> bytes:
    """The attention map with the saliency below it, as PNG bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tokens, saliency, maps = found["tokens"], found["saliency"], found["attention"]
    figure = Figure(figsize=(8, 8 if maps else 3), dpi=130, layout="constrained")
    axes = figure.subplots(2 if maps and saliency else 1, 1, height_ratios=[4, 1] if maps and saliency else None, squeeze=False)
    panels = list(axes[:, 0])
    if maps:
        ax = panels.pop(0)
        ax.imshow(maps, cmap="viridis", vmin=0, aspect="auto")
        which = "mean of its heads" if found["head"] is None else f"head {found['head']}"
        ax.set_title(f"Attention, layer {found['layer']} ({found['layer_name']}), {which}", fontsize=10)
        _name(ax.xaxis, found["keys"], 90)
        _name(ax.yaxis, found["queries"], 0)
        ax.set_xlabel("looks at")
        ax.set_ylabel("token")
    if saliency:
        ax = panels.pop(0)
        ax.bar(range(len(saliency)), saliency, color="#31688e")
        ax.set_xlim(-0.5, len(saliency) - 0.5)
        said = f"How much {found['answer']['text']!r} hangs on each token (|gradient . embedding|)"
        ax.set_title(said.replace("$", r"\$"), fontsize=10)
        _name(ax.xaxis, tokens, 90)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": "Engram"})
    return file.getvalue()


def _name(axis: Any, names: list[str], rotation: int) -> None:
    if len(names) <= MOST:
        shown = [repr(n)[1:-1].replace(" ", "\u2423").replace("$", r"\$") for n in names]
        axis.set_ticks(range(len(names)), shown, rotation=rotation, fontsize=7)
