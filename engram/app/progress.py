"""Live progress on stderr: a bar in terminals and notebooks, a line per evaluation elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from engram.app.notebook import NotebookBar
from engram.core.plan import Evaluated, Event, Stepped

if TYPE_CHECKING:
    from engram.app.train import Job
    from engram.checkpoint.folder import RunFolder
    from engram.core.snapshot import Snapshot


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """A line of talk."""

    def start(self, job: Job, folder: RunFolder | None, state: Snapshot | None) -> None:
        """Before the first step."""

    def __call__(self, event: Event) -> None:
        """At every event."""

    def stop(self) -> None:
        """When the loop has ended, in any way."""

    def finished(self, result: dict[str, Any], folder: RunFolder) -> None:
        """When the figures on unseen data are there."""


silent = Silent()


class Progress(Silent):
    """Talks on stderr, so that stdout is data alone. Redraws at most ten times a second."""

    def __init__(self):
        self.console = Console(stderr=True, highlight=False)
        self.notebook = self.console.is_jupyter
        self.bar: Bar | NotebookBar | None = None
        self.shown = 0.0

    def say(self, text: str) -> None:
        """A line of talk."""
        if self.notebook:
            print(text, flush=True)  # rich would put each line into a box that scrolls sideways, on red paper
        else:
            self.console.print(text, markup=False, soft_wrap=True)

    def start(self, job: Job, folder: RunFolder | None, state: Snapshot | None) -> None:
        """Say what is trained on what, how and where."""
        at = state.facts["at"]["step"] if state else 0
        self.say(f"data     {job.data.summary.title}")
        for note in job.data.summary.notes:
            self.say(f"{'warning' if note.level == 'warning' else 'note':<8} {note.text}")
        self.say(f"network  {job.name}, {job.parameters:,} parameters")
        self.say(f"machine  {job.device}; {'; '.join(job.machine.why)}")
        if folder:
            self.say(f"run      {folder.path}" + (f" (going on after step {at:,})" if state else ""))
        self.per_epoch, self.total = job.data.steps_per_epoch, job.plan.steps
        if self.notebook:
            self.bar = NotebookBar(job.plan.steps, at)
        elif self.console.is_terminal:
            self.bar = Bar(
                TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(), console=self.console, auto_refresh=False,
            )  # fmt: skip
            self.bar.start()
            self.line = self.bar.add_task("", total=job.plan.steps, completed=at, text="")

    def __call__(self, event: Event) -> None:
        """Move the bar; print evaluations."""
        if isinstance(event, Stepped) and self.bar:
            now = time.monotonic()
            if now - self.shown > 0.1 or event.step == self.total:
                self.shown = now
                loss = next((float(v) for k, v in event.logs.items() if k.endswith("/loss")), float("nan"))
                self.draw(event.step, f"loss {loss:.4f}")
        elif isinstance(event, Evaluated) and event.metrics:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
            epoch = event.step / self.per_epoch
            mark = "  *" if event.best else ""
            self.say(f"step {event.step:>6,}  epoch {epoch:>5.1f}  val {figures}{mark}")

    def draw(self, step: int, text: str) -> None:
        """The bar after `step` steps."""
        if isinstance(self.bar, NotebookBar):
            self.bar.update(step, text)
        elif self.bar:
            self.bar.update(self.line, completed=step, text=text, refresh=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if isinstance(self.bar, Bar):
            self.bar.stop()
        self.bar = None

    def finished(self, result: dict[str, Any], folder: RunFolder) -> None:
        """The verdict, the run's path and the next command to type."""
        self.say(f"result   {result.get('verdict', '')}")
        self.say(f"run      {folder.path}")
        if folder.html.exists():
            self.say(f"report   {folder.html}")
        self.say(f"next     {next_command(folder)}")


def next_command(folder: RunFolder) -> str:
    """What to type next with a finished run."""
    spec = folder.info()["spec"]
    if spec["kind"] == "LanguageSpec":
        return f"engram chat {folder.path}" if spec.get("chat") else f'engram generate {folder.path} "..."'
    if spec["kind"] == "PairSpec":
        return f'engram translate {folder.path} "..."'
    verbs = folder.read_result().get("verbs", ())
    if "sample" in verbs:
        prompt = ' --prompt "..."' if spec["kind"] == "CaptionSpec" else ""
        return f"engram sample {folder.path}{prompt}"
    for verb in ("denoise", "reconstruct"):
        if verb in verbs:
            return f"engram {verb} {folder.path} FILE"
    return f"engram predict {folder.path} FILE"
