"""Contenders from other libraries, each used as its own guide shows: Lightning, HF Trainer, skorch, scikit-learn.

Their packages are imported inside the classes: a contender's process loads only what it needs. They come from
benchmarks/requirements.txt and are no part of Engram.
"""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from benchmarks.loops import Contestant, TorchContestant
from benchmarks.workloads import figures


class Lightning(TorchContestant):
    """Trainer(max_epochs=1) with its defaults: progress bar, logger, checkpoint; the loss is logged."""

    note = "defaults: progress bar, logger, model summary, checkpoint; default Adam"
    packages = ("torch", "lightning")
    bare = False

    def build(self, seed: int) -> None:
        """See Contestant."""
        import lightning

        work, bare = self.work, self.bare

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.network = work.network()

            def training_step(self, batch: list[Tensor], number: int) -> Tensor:
                x, y = batch
                loss = F.cross_entropy(self.network(x), y)
                if not bare:
                    self.log("train_loss", loss)
                return loss

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.parameters(), lr=work.lr)

        self.folder = tempfile.TemporaryDirectory()
        self.module = Module()
        self.network = self.module.network
        self.loader = DataLoader(TensorDataset(work.x, work.y), batch_size=work.batch, shuffle=True)
        switches: dict[str, Any] = {}
        if bare:
            names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
            switches = dict.fromkeys(names, False)
        self.trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=self.folder.name, **switches)

    def train(self) -> None:
        """See Contestant."""
        self.trainer.fit(self.module, self.loader)

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        self.folder.cleanup()
        return super().measure()


class LightningBare(Lightning):
    """Everything that can be switched off is off."""

    note = "logger, checkpoint, progress bar and summary off; default Adam"
    bare = True


class Rows(Dataset):
    """Rows as the dicts that the HF Trainer wants."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"x": self.x[row], "labels": self.y[row]}


class WithLoss(nn.Module):
    """A network whose forward pass gives the loss, as the HF Trainer wants it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss and the logits."""
        logits = self.network(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class HFTrainer(TorchContestant):
    """transformers.Trainer on a plain nn.Module."""

    note = "defaults (its AdamW, clipping at 1, log and checkpoint every 500 steps, progress bar), constant rate"
    packages = ("torch", "transformers", "accelerate")

    def build(self, seed: int) -> None:
        """See Contestant."""
        from transformers import Trainer, TrainingArguments

        work = self.work
        self.folder = tempfile.TemporaryDirectory()
        self.network = work.network()
        arguments = TrainingArguments(
            output_dir=self.folder.name, num_train_epochs=1, per_device_train_batch_size=work.batch, learning_rate=work.lr,
            lr_scheduler_type="constant", report_to="none", use_cpu=True, seed=seed % 2**31,
        )  # fmt: skip
        self.trainer = Trainer(WithLoss(self.network), arguments, train_dataset=Rows(work.x, work.y))

    def train(self) -> None:
        """See Contestant."""
        self.trainer.train()

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        self.folder.cleanup()
        return super().measure()


class Skorch(TorchContestant):
    """NeuralNetClassifier with its defaults, but no validation split."""

    note = "defaults (table of losses printed), no validation split; default Adam"
    packages = ("torch", "skorch")

    def build(self, seed: int) -> None:
        """See Contestant."""
        import skorch

        classifier: Any = skorch.NeuralNetClassifier  # its annotations are narrower than what it takes
        self.classifier = classifier(
            self.work.network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=self.work.lr,
            batch_size=self.work.batch, max_epochs=1, train_split=None, iterator_train__shuffle=True,
        )  # fmt: skip

    def train(self) -> None:
        """See Contestant."""
        self.classifier.fit(self.work.x.numpy(), self.work.y.numpy())

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        self.network = self.classifier.module_
        return super().measure()


class Sklearn(Contestant):
    """MLPClassifier; its network is that of `mlp` and `table`."""

    note = "MLPClassifier, NumPy and BLAS"
    packages = ("scikit-learn", "numpy")

    def hello(self) -> dict[str, Any]:
        """See Contestant."""
        import sklearn.neural_network  # noqa: F401  (its BLAS must be there to be counted)
        from threadpoolctl import threadpool_info

        return super().hello() | {"threads": max(pool["num_threads"] for pool in threadpool_info())}

    def build(self, seed: int) -> None:
        """See Contestant."""
        from sklearn.neural_network import MLPClassifier

        if not self.work.hidden:
            raise LookupError("scikit-learn has no convolutions")
        classifier: Any = MLPClassifier
        self.classifier = classifier(
            self.work.hidden, solver="adam", alpha=0.0, batch_size=self.work.batch, learning_rate_init=self.work.lr,
            max_iter=1, shuffle=True, random_state=seed % 2**31,
        )  # fmt: skip

    def train(self) -> None:
        """See Contestant."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one epoch has not converged, as asked
            self.classifier.fit(self.work.x.numpy(), self.work.y.numpy())

    def measure(self) -> dict[str, float]:
        """See Contestant."""
        return figures(lambda x: torch.from_numpy(self.classifier.predict_log_proba(x.numpy())), self.work)
