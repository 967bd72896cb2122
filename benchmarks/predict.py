"""Inference of a trained CNN on 10,000 images: an fp32 eager loop against Engram's predictor.  python -m benchmarks.predict

The network is trained once into a run folder; every contender reads its weights from there, and compares its outputs with
those of the fp32 loop before it is timed: probabilities within TOLERANCE, or the contender fails.
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

BATCH = 128
TOLERANCE = 0.05  # of a probability; bfloat16 keeps 8 bits
NOTES = {
    "eager": f"model.eval(), torch.inference_mode(), softmax, batches of {BATCH}; contiguous layout",
    "engram_fp32": "Classifier.outputs of all images, untuned",
    "engram_batches": f"as engram, in batches of {BATCH} as eager has them",
    "engram": "engram.load(run).predictor.outputs of all images: norms folded, number format and layout of the run",
}


class Images:
    """One contender with the weights of a run."""

    def __init__(self, name: str, run: str, quick: bool, threads: int):
        from benchmarks.ours import Workbench
        from benchmarks.workloads import workload
        from engram.app.run import load

        if threads:
            torch.set_num_threads(threads)
        self.name, self.work = name, workload("cnn", quick)
        self.run_folder = load(run, recipe=Workbench)
        self.model = self.run_folder.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        truth = self._eager()
        self.once = self._eager if name == "eager" else self._predictor(name != "engram_fp32", name == "engram_batches")
        self.off = float((self.once() - truth).abs().max())
        if self.off > TOLERANCE:
            raise ArithmeticError(f"probabilities differ by {self.off:.3f} from the fp32 loop; at most {TOLERANCE} is allowed")

    def _eager(self) -> Tensor:
        with torch.inference_mode():
            return torch.cat([self.model(x).softmax(1) for x in self.work.test_x.split(BATCH)])

    def _predictor(self, tuned: bool, batches: bool) -> Any:
        from engram.app.machine import keep_memory

        keep_memory()
        run = self.run_folder
        predictor = run.predictor if tuned else run.recipe.make_predictor(run.task, run.spec)
        rows = self.work.test_x.split(BATCH if batches else len(self.work.test_x))
        return lambda: torch.cat([predictor.outputs({"x": x})["probabilities"] for x in rows])

    def hello(self) -> dict[str, Any]:
        """What the row says of itself."""
        tuned = self.name in ("engram", "engram_batches")
        chosen = self.run_folder.info["machine"] if tuned else {"precision": "fp32", "channels_last": False}
        return {
            "versions": versions("torch"), "threads": torch.get_num_threads(), "note": NOTES[self.name],
            "precision": chosen["precision"] + (" channels-last" if chosen["channels_last"] else ""),
            "allocator": "glibc as it comes" if self.name == "eager" else "freed blocks kept (mallopt)",
        }  # fmt: skip

    def run(self) -> dict[str, Any]:
        """All test images once."""
        with Timed() as clock:
            probabilities = self.once()
        accuracy = float((probabilities.argmax(1) == self.work.test_y).float().mean())
        return clock.to_json() | {"units": len(probabilities), "figures": {"accuracy": accuracy, "off_by": self.off}}


def worker(name: str, run: str, quick: str, threads: str) -> None:
    """Serve one contender."""
    made: list[Images] = []

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        if not made:
            made.append(Images(name, run, quick == "1", int(threads)))
        return made[0].hello() if question["do"] == "hello" else made[0].run()

    serve(answer)


def train(folder: Path, quick: bool) -> None:
    """One epoch with Engram's defaults into `folder`."""
    from benchmarks.ours import Workbench
    from engram.app.train import prepare, run_job, write_start
    from engram.checkpoint.folder import RunFolder

    job = prepare("custom:Workbench", Workbench(work="cnn", quick=quick, batch=128))
    run = RunFolder.create(folder, "run")
    write_start(job, run, ["benchmark"])
    run_job(job, run, lambda event, job: None)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--serve"]:
        worker(*sys.argv[2:])
        return 0
    asked = options((__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        train(run, asked.quick)
        ends = (str(run), str(int(asked.quick)), str(asked.threads))
        rows = [Contender(name, ("-m", "benchmarks.predict", "--serve", name, *ends)) for name in NOTES]
        about = "10,000 images of 28x28 through conv 32, conv 64, pool, dense 128: one trained network for all"
        return finish(compare("predict", rows, asked, reference="eager", unit="image", about=about))


if __name__ == "__main__":
    sys.exit(main())
