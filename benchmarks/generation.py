"""Text from a GPT-2 of 124 M random weights: transformers' generate against Engram's decoding.

python -m benchmarks.generation one      1 prompt of 64 tokens, 64 new ones
python -m benchmarks.generation batch    16 such prompts at once
python -m benchmarks.generation mixed    32 prompts of 8 to 200 tokens, 16 to 128 new ones each

Every contender has the same weights, drawn once from a seed by transformers, and takes the most probable token; before it is
timed its logits are compared with those of transformers in fp32, and must be within TOLERANCE of them.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Contender, compare, finish, options
from benchmarks.worker import Timed, serve, versions

TOLERANCE = {"fp32": 1e-3, "bf16": 0.3, "int8": 0.3, "int4": 2.0}  # of a logit; their standard deviation is about 0.55
SAMPLE = 8  # of the mixed prompts are timed where they are answered one at a time: each costs the same as in the whole
CONTENDERS = {
    "one": ("transformers_fp32", "transformers_bf16", "engram_fp32", "engram_bf16", "engram_int8", "engram_int4"),
    "batch": ("transformers_bf16", "engram_bf16", "engram_int8"),
    "mixed": ("transformers_bf16", "engram_bf16"),
}
ABOUT = {
    "one": "one prompt of 64 tokens, 64 new tokens",
    "batch": "16 prompts of 64 tokens, 64 new tokens each",
    "mixed": "32 prompts of 8 to 200 tokens, 16 to 128 new tokens each; transformers one at a time, Engram 32 rows at once",
}
NOTES = {"transformers": "GPT2LMHeadModel.generate, greedy, its default cache", "engram": "decode of a quantised copy, greedy"}
WORDS = 50257


def requests(mode: str, quick: bool) -> list[tuple[list[int], int]]:
    """Prompts and how many tokens each asks for."""
    dice = random.Random(0)
    counts = {"one": 1, "batch": 16, "mixed": 32}
    found = []
    for _ in range(4 if quick and mode != "one" else counts[mode]):
        length, new = (dice.randint(8, 200), dice.randint(16, 128)) if mode == "mixed" else (64, 64)
        found.append(([dice.randrange(WORDS) for _ in range(length)], 4 if quick else new))
    return found


def theirs(quick: bool) -> Any:
    """GPT-2 small with random weights; two layers of it for a quick run."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2 if quick else 12, bos_token_id=None, eos_token_id=None)).eval()


def converted(model: Any) -> nn.Module:
    """The same weights in Engram's GPT."""
    from engram.models.gpt import GPT

    size = model.config
    own = GPT(size.vocab_size, size.n_positions, size.n_layer, size.n_head, size.n_embd)
    names = {
        "transformer.wte": "tokens", "transformer.wpe": "places", "transformer.ln_f": "norm", "transformer.h": "blocks",
        "ln_1": "norm1", "ln_2": "norm2", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out",
        "mlp.c_fc": "ffn.up", "mlp.c_proj": "ffn.down",
    }  # fmt: skip
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        turned = value.T if ".c_" in name and value.dim() == 2 else value  # GPT-2's Conv1D keeps its weights transposed
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = turned
    own.load_state_dict(state)
    return own.eval()


class Writer:
    """One contender."""

    def __init__(self, name: str, mode: str, quick: bool, threads: int):
        if threads:
            torch.set_num_threads(threads)
        from engram.app.machine import keep_memory
        from engram.inference.quantise import quantise

        self.library, _, self.form = name.partition("_")
        self.asked = requests(mode, quick)
        if mode == "mixed" and self.library == "transformers":
            self.asked = random.Random(1).sample(self.asked, min(SAMPLE, len(self.asked)))
        model = theirs(quick)
        probe = torch.tensor([requests("one", True)[0][0]])
        with torch.inference_mode():
            truth = model(probe).logits.float()
            if self.library == "transformers":
                self.model = model.to(torch.bfloat16) if self.form == "bf16" else model
                logits = self.model(probe).logits.float()
            else:
                keep_memory()
                self.model = quantise(converted(model), self.form)
                logits = self.model(probe).float()
        self.off = float((logits - truth).abs().max())
        if self.off > TOLERANCE[self.form]:
            raise ArithmeticError(f"logits differ by {self.off:.3f} from fp32; at most {TOLERANCE[self.form]} is allowed")
        self.together = mode == "batch"

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        return {
            "versions": versions("torch", "transformers"), "threads": torch.get_num_threads(), "precision": self.form,
            "note": NOTES[self.library],
            "allocator": "glibc as it comes" if self.library == "transformers" else "freed blocks kept (mallopt)",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """All requests once; units are new tokens."""
        with Timed() as clock:
            made = self._theirs() if self.library == "transformers" else self._ours()
        assert made == sum(new for _, new in self.asked)
        return clock.to_json() | {"units": made, "figures": {"tokens_per_second": made / clock.seconds, "off_by": self.off}}

    def _theirs(self) -> int:
        groups = [self.asked] if self.together else [[one] for one in self.asked]
        made = 0
        for group in groups:
            ids, new = torch.tensor([p for p, _ in group]), group[0][1]
            out = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
            made += (out.shape[1] - ids.shape[1]) * len(group)
        return made

    def _ours(self) -> int:
        from engram.inference.decode import decode
        from engram.inference.sampling import Sampling

        prompts, limits = [p for p, _ in self.asked], [n for _, n in self.asked]
        drawn = decode(
            self.model, prompts, Sampling(temperature=0), most=limits, ends=frozenset(), context=1024,  # type: ignore[arg-type]
            device=torch.device("cpu"), finished=set(), rows=32,
        )  # fmt: skip
        return sum(1 for _ in drawn)


def worker(name: str, mode: str, quick: str, threads: str) -> None:
    """Serve one contender."""
    made: list[Writer] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(Writer(name, mode, quick == "1", int(threads)))
        return made[0].hello() if question["do"] == "hello" else made[0].run()

    serve(answer)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    parser = options((__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=list(CONTENDERS))
    asked = parser.parse_args()
    ends = (asked.mode, str(int(asked.quick)), str(asked.threads))
    rows = [Contender(n, ("-m", "benchmarks.generation", "--serve", n, *ends)) for n in CONTENDERS[asked.mode]]
    about = f"GPT-2 of 124 M random weights, {ABOUT[asked.mode]}"
    return finish(compare(f"generation_{asked.mode}", rows, asked, reference=rows[0].name, unit="token", about=about))


if __name__ == "__main__":
    sys.exit(main())
