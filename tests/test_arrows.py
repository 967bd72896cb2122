"""Who may import whom, read from the source: nested imports count, those for type checkers too."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ENGRAM = Path(__file__).parent.parent / "engram"
FILES = sorted(ENGRAM.rglob("*.py"))

MAY: dict[str, set[str]] = {
    "core": set(),
    "nn": set(),
    "models": {"nn"},
    "data": {"core"},
    "optim": {"core"},
    "training": {"core"},
    "checkpoint": {"core"},
    "tasks": {"core", "nn"},
    "inference": {"core", "nn"},
    "insight": {"core", "nn"},
    "recipes": {"core", "data", "nn", "models", "tasks", "optim", "inference"},
    "sklearn": {"core", "data", "training", "tasks", "recipes"},
    "app": {
        "__version__",
        "core",
        "nn",
        "models",
        "data",
        "tasks",
        "optim",
        "training",
        "checkpoint",
        "inference",
        "insight",
        "recipes",
    },
}
CORE_MAY = set(sys.stdlib_module_names) | {"torch", "engram"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imports(tree: ast.AST, path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts(path: Path) -> tuple[str, str]:
    """('tasks', 'classify') for engram/tasks/classify.py."""
    inside = path.relative_to(ENGRAM).with_suffix("").parts
    return (inside[0], inside[1]) if len(inside) > 1 else ("", inside[0])


def of_ours(path: Path) -> Iterator[tuple[str, str]]:
    """The (package, module) pairs of Engram that a file imports."""
    for name in imports(ast.parse(path.read_text("utf-8")), path):
        package, _, rest = name.partition(".")
        if package == "engram":
            first, _, second = rest.partition(".")
            yield first, second.partition(".")[0]


def test_every_package_has_its_arrows():
    assert {p.name for p in ENGRAM.iterdir() if p.is_dir() and any(p.glob("*.py"))} == set(MAY)
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ENGRAM)))
def test_arrows(path: Path):
    package, module = parts(path)
    if not package:  # engram/__init__.py is the front door; it opens lazily, as the test below sees
        return
    for other, its in of_ours(path):
        if other == package:
            alone = package in ("models", "recipes") and module != "__init__"
            shared = its.startswith("_")  # a module that is no recipe: what siblings that differ by one word have in common
            assert not alone or its == module or shared, f"{path}: siblings share nothing, but it imports {other}.{its}"
        else:
            assert other in MAY[package], f"{path}: {package} may not import {other}.{its}"


@pytest.mark.parametrize("path", sorted((ENGRAM / "core").glob("*.py")), ids=lambda p: p.name)
def test_core_imports_torch_and_nothing_else(path: Path):
    for name in imports(ast.parse(path.read_text("utf-8")), path):
        assert name.partition(".")[0] in CORE_MAY, f"{path}: core may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ENGRAM)))
def test_nothing_reads_or_writes_pickle(path: Path):
    """No torch.load or torch.save under any name, no pickle module, no allow_pickle."""
    tree = ast.parse(path.read_text("utf-8"))
    for name in imports(tree, path):
        assert name.partition(".")[0] not in PICKLES, f"{path}: {name}"
        assert name not in ("torch.load", "torch.save", "torch.package", "torch.hub"), f"{path}: {name}"
    torches = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names if a.name == "torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in torches:
            assert node.attr not in ("load", "save", "hub", "package"), f"{path}:{node.lineno}: torch.{node.attr}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}: allow_pickle"
            assert node.value.value is False, f"{path}:{node.value.lineno}: allow_pickle"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("read_pickle", "to_pickle"), f"{path}:{node.lineno}: {node.attr}"


SNIPPETS = {
    "def f():\n    from engram.app.run import load": ("app", "run"),
    "if True:\n    import engram.models.cnn as x": ("models", "cnn"),
    "from engram.recipes import find": ("recipes", "find"),
    "from engram import app": ("app", ""),
}


@pytest.mark.parametrize("source", SNIPPETS)
def test_nested_and_renamed_imports_are_seen(source: str, tmp_path: Path):
    (tmp_path / "x.py").write_text(source)
    assert list(of_ours(tmp_path / "x.py")) == [SNIPPETS[source]]


def loaded_by(statement: str) -> set[str]:
    """Top names of the modules that a fresh process holds after a statement."""
    code = f"import sys; {statement}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ENGRAM.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_engram_does_not_import_torch():
    heavy = {"torch", "numpy", "pandas", "matplotlib", "sklearn"}
    assert not loaded_by("import engram") & heavy
    import engram
    from engram.core.task import Task

    assert engram.Task is Task
    assert set(engram.__all__) <= set(dir(engram))


def test_the_command_line_does_not_import_torch():
    if importlib.util.find_spec("engram.app.cli") is None:
        pytest.skip("there is no command line yet")
    assert not loaded_by("import engram.app.cli") & {"torch", "numpy", "pandas", "matplotlib", "sklearn"}
