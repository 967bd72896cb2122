"""Translation by beam search: Engram beside transformers, one set of weights.  python -m benchmarks.translation --run RUN

RUN is a run of `engram train transformer`. Its weights are read into transformers' network of the same layout (Pegasus: norms
before the layers, sinusoids), so every contender has the same network, the same sources, beams and limit, no length penalty,
and ends a text when as many hypotheses are finished as there are beams. BLEU stands beside the time. Without --run a network
is trained on made pairs for a moment.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import Timed, serve, versions

BEAMS = 5
MOST = 64  # tokens of a text
BATCH = 32  # texts that transformers is given at a time, sorted by length as ours
NOTES = {
    "transformers": f"PegasusForConditionalGeneration.generate, fp32, batches of {BATCH} sorted by length",
    "transformers_bf16": "the same in bfloat16",
    "transformers_single": "the same in fp32, one text at a time",
    "engram_fp32": "Translator.search, fp32",
    "engram": "Translator.search, bfloat16",
}


def peer(net: Any) -> Any:
    """transformers' network with the weights of a pre-norm Transformer with one tied table."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    hidden = net.encoder[0].ffn[0].out_features
    config = PegasusConfig(
        vocab_size=net.target.num_embeddings, d_model=net.width, encoder_layers=len(net.encoder),
        decoder_layers=len(net.decoder), encoder_attention_heads=net.heads, decoder_attention_heads=net.heads,
        encoder_ffn_dim=hidden, decoder_ffn_dim=hidden, activation_function="relu", scale_embedding=True,
        max_position_embeddings=net.context, pad_token_id=0, eos_token_id=3, decoder_start_token_id=2,
        forced_eos_token_id=None,
    )  # fmt: skip
    theirs = PegasusForConditionalGeneration(config).eval()
    state: dict[str, Tensor] = {}
    for stack in ("encoder", "decoder"):
        for i, block in enumerate(getattr(net, stack)):
            there = f"model.{stack}.layers.{i}."
            for p in ("weight", "bias"):
                q, k, v = getattr(block.attention.qkv, p).chunk(3)
                state |= {f"{there}self_attn.{n}_proj.{p}": t for n, t in zip("qkv", (q, k, v), strict=True)}
                state[f"{there}self_attn.out_proj.{p}"] = getattr(block.attention.out, p)
                state[f"{there}self_attn_layer_norm.{p}"] = getattr(block.around1.norm, p)
                last = block.around2
                if stack == "decoder":
                    state[f"{there}encoder_attn.q_proj.{p}"] = getattr(block.cross.q, p)
                    k, v = getattr(block.cross.kv, p).chunk(2)
                    state |= {f"{there}encoder_attn.k_proj.{p}": k, f"{there}encoder_attn.v_proj.{p}": v}
                    state[f"{there}encoder_attn.out_proj.{p}"] = getattr(block.cross.out, p)
                    state[f"{there}encoder_attn_layer_norm.{p}"] = getattr(block.around2.norm, p)
                    last = block.around3
                state[f"{there}final_layer_norm.{p}"] = getattr(last.norm, p)
                state[f"{there}fc1.{p}"], state[f"{there}fc2.{p}"] = getattr(block.ffn[0], p), getattr(block.ffn[2], p)
        for p in ("weight", "bias"):
            state[f"model.{stack}.layer_norm.{p}"] = getattr(getattr(net, f"{stack}_norm"), p)
        state[f"model.{stack}.embed_positions.weight"] = net.table
    for name in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = net.target.weight
    missing = theirs.load_state_dict(state, strict=False)
    left = [n for n in missing.missing_keys if n != "final_logits_bias"]
    if left or missing.unexpected_keys:
        raise ArithmeticError(f"the weights do not fit transformers' network: {left} {missing.unexpected_keys}")
    return theirs


class Texts:
    """One contender with the weights of a run and the test pairs of its data."""

    def __init__(self, name: str, folder: str, rows: int, threads: int):
        from engram.app.machine import keep_memory
        from engram.app.run import load
        from engram.data.pair_spec import PairSpec
        from engram.inference.translate import Translator

        if threads:
            torch.set_num_threads(threads)
        self.name, run = name, load(folder, device="cpu")
        data, spec = run.recipe.make_data(), run.spec
        assert isinstance(spec, PairSpec)
        self.spec, count = spec, min(rows, data.size("test"))
        self.pairs = data.raw("test", list(range(count)))
        self.ids = [spec.source_ids(row["source"]) for row in self.pairs]
        translator = run.recipe.make_predictor(run.task, spec)
        assert isinstance(translator, Translator)
        self.banned = translator.banned
        if name.startswith("engram"):
            keep_memory()
            translator.tune(bf16=name == "engram", channels_last=False)
            self.translator = translator
        else:
            self.net = peer(run.model)
            if name.endswith("bf16"):
                self.net = self.net.to(torch.bfloat16)

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        return {
            "versions": versions("torch", "transformers"), "threads": torch.get_num_threads(), "note": NOTES[self.name],
            "precision": "bf16" if self.name in ("engram", "transformers_bf16") else "fp32",
            "allocator": "freed blocks kept (mallopt)" if self.name.startswith("engram") else "glibc as it comes",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """All texts once: from ids to text."""
        with Timed() as clock:
            texts = self._ours() if self.name.startswith("engram") else self._theirs()
        from engram.inference.bleu import BLEU

        counts = [BLEU.count(t, self.spec.references(row)) for t, row in zip(texts, self.pairs, strict=True)]
        bleu = float(BLEU.figure.statistic(torch.tensor(counts).sum(0, keepdim=True))[0])
        tokens = sum(len(self.spec.target_vocabulary.encode(t)) + 1 for t in texts)
        return clock.to_json() | {"units": len(texts), "figures": {"bleu": bleu, "tokens": tokens}}

    def _ours(self) -> list[str]:
        found = self.translator.search([row["source"] for row in self.pairs], BEAMS, 0.0, MOST)
        return [self.spec.decode(hypotheses[0].ids) for hypotheses in found]

    def _theirs(self) -> list[str]:
        texts = [""] * len(self.ids)
        order = sorted(range(len(self.ids)), key=lambda r: -len(self.ids[r]))
        step = 1 if self.name.endswith("single") else BATCH
        for first in range(0, len(order), step):
            rows = order[first : first + step]
            source = torch.zeros(len(rows), len(self.ids[rows[0]]), dtype=torch.int64)
            for at, row in enumerate(rows):
                source[at, : len(self.ids[row])] = torch.tensor(self.ids[row])
            with torch.inference_mode():
                out = self.net.generate(
                    input_ids=source, attention_mask=(source != 0).long(), num_beams=BEAMS, do_sample=False,
                    max_new_tokens=MOST, length_penalty=0.0, early_stopping=True, suppress_tokens=list(self.banned),
                )  # fmt: skip
            for row, ids in zip(rows, out.tolist(), strict=True):
                ids = ids[1:]
                texts[row] = self.spec.decode(ids[: ids.index(3)] if 3 in ids else ids)
        return texts


def worker(name: str, run: str, rows: str, threads: str) -> None:
    """Serve one contender."""
    made: list[Texts] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(Texts(name, run, int(rows), int(threads)))
        return made[0].hello() if question["do"] == "hello" else made[0].run()

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    parser = options((__doc__ or "").splitlines()[0])
    parser.add_argument("--run", default="", help="a run of engram train transformer")
    parser.add_argument("--rows", type=int, default=128, help="test pairs to translate")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = asked.run
        if not run:
            import engram

            run, steps = str(Path(scratch) / "run"), 20 if asked.quick else 400
            knobs = {"vocab_size": 320, "context": 32, "layers": 2, "width": 64, "dropout": 0.0, "steps": steps, "batch": 32}
            engram.train("transformer", data="numbers", out=run, progress=False, report=False, **knobs)
        ends = (run, str(16 if asked.quick else asked.rows), str(asked.threads))
        rows = [Contender(name, ("-m", "benchmarks.translation", "--serve", name, *ends)) for name in NOTES]
        about = f"beam search with {BEAMS} beams, at most {MOST} tokens, no length penalty, one trained network for all"
        return finish(compare("translation", rows, asked, reference="transformers", unit="text", about=about))


if __name__ == "__main__":
    sys.exit(main())
