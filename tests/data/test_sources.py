"""Built-in sets are found in their order, checked by content, and downloaded whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engram.core.errors import DataError
from engram.data import sources
from engram.data.sources import ADULT_COLUMNS, BUILT_IN, Remote, Source, locate, table_frames

TEXT = b"a,b\n1,2\n"
SHA = hashlib.sha256(TEXT).hexdigest()
needs_data = pytest.mark.skipif("ENGRAM_DATA" not in os.environ, reason="ENGRAM_DATA is not set")
REAL = Path(os.environ.get("ENGRAM_DATA", "."))


class Server(ThreadingHTTPServer):
    """Serves `files` by path and keeps the paths that were asked for."""

    files: dict[str, bytes]
    asked: list[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.asked.append(self.path)
        body = server.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        # A body that stops early is what a broken connection looks like.
        self.send_header("Content-Length", str(len(body or b"") + (100 if self.path.startswith("/cut") else 0)))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(ENGRAM_DATA, cache), with one invented set `small` of a plain and a compressed file; no address answers."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    monkeypatch.setenv("ENGRAM_DATA", str(own))
    monkeypatch.setenv("ENGRAM_CACHE", str(cache))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    files = {"a.csv": Remote("http://127.0.0.1:9/a.csv", SHA), "b.gz": Remote("http://127.0.0.1:9/b.gz", SHA)}
    monkeypatch.setitem(BUILT_IN, "small", Source("table", "invented", 1, "none", "b", files))
    return own, cache


def fill(folder: Path, level: int = 9) -> dict[str, Path]:
    (folder / "small").mkdir(parents=True)
    paths = {"a.csv": folder / "small" / "a.csv", "b.gz": folder / "small" / "b.gz"}
    paths["a.csv"].write_bytes(TEXT)
    paths["b.gz"].write_bytes(gzip.compress(TEXT, level))
    return paths


def serve_small(server: Server) -> None:
    server.files = {"/small/a.csv": TEXT, "/small/b.gz": gzip.compress(TEXT)}


def left_over(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.rglob("*") if p.is_file())


def test_own_folder_comes_first(folders: tuple[Path, Path]) -> None:
    own, cache = (fill(folder) for folder in folders)
    assert locate("small") == own
    for path in own.values():
        path.unlink()
    assert locate("small") == cache


@pytest.mark.parametrize("level", [0, 1, 9])
def test_compression_does_not_matter(folders: tuple[Path, Path], level: int) -> None:
    paths = fill(folders[0], level)
    assert locate("small") == paths


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize(
    ("file", "content"),
    [("a.csv", b"other"), ("b.gz", gzip.compress(b"other")), ("b.gz", gzip.compress(TEXT)[:-5]), ("b.gz", TEXT)],
    ids=["other text", "other text compressed", "cut short", "not compressed"],  # gzip writes the time: no name of a test may
)
def test_other_content_is_an_error(folders: tuple[Path, Path], where: int, file: str, content: bytes) -> None:
    fill(folders[where])[file].write_bytes(content)
    with pytest.raises(DataError, match=rf"{file} is not the small data: its sha256 differs"):
        locate("small")


def test_download_goes_to_the_cache_once(folders: tuple[Path, Path], server: Server) -> None:
    serve_small(server)
    got = locate("small", mirror=server.address + "/")
    assert got == {name: folders[1] / "small" / name for name in ("a.csv", "b.gz")}
    assert got["a.csv"].read_bytes() == TEXT
    assert locate("small", mirror=server.address) == got
    assert server.asked == ["/small/a.csv", "/small/b.gz"]
    assert left_over(folders[1]) == ["a.csv", "b.gz"]


def test_the_pinned_address_is_asked(folders: tuple[Path, Path], server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/deep/a.csv"] = TEXT
    files = {"a.csv": Remote(server.address + "/deep/a.csv", SHA)}
    monkeypatch.setitem(BUILT_IN, "small", Source("table", "invented", 1, "none", "b", files))
    assert locate("small")["a.csv"].read_bytes() == TEXT


def test_a_download_of_other_content_is_thrown_away(folders: tuple[Path, Path], server: Server) -> None:
    serve_small(server)
    server.files["/small/a.csv"] = b"<html>please log in</html>"
    with pytest.raises(DataError, match="did not send the small data: its sha256 differs"):
        locate("small", mirror=server.address)
    assert left_over(folders[1]) == []


@pytest.mark.parametrize("trouble", ["404", "cut", "no server"])
def test_no_download(folders: tuple[Path, Path], server: Server, trouble: str) -> None:
    server.files = {"/cut/small/a.csv": TEXT[:4]}
    address = {"404": server.address, "cut": server.address + "/cut", "no server": ""}[trouble]
    with pytest.raises(DataError) as caught:
        locate("small", mirror=address)
    text = str(caught.value)
    assert left_over(folders[1]) == []
    if trouble == "cut":  # http.client may report it, or hand over what came, whose sha256 then differs
        return
    assert str(folders[0]) in text
    assert str(folders[1]) in text
    assert "ENGRAM_DATA" in text
    assert "iris" in text
    assert ("Not Found" if trouble == "404" else "efused") in text
    assert "\n" not in text


def test_unset_folder_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENGRAM_DATA")
    with pytest.raises(DataError, match=r"ENGRAM_DATA \(not set\)"):
        locate("small")


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ENGRAM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / ".cache" / "engram"


def test_unknown_name() -> None:
    with pytest.raises(DataError, match=r"'irsi' \(did you mean iris\?\)"):
        locate("irsi")


def test_every_file_is_pinned() -> None:
    for name, source in BUILT_IN.items():
        assert source.rows > 0, name
        assert bool(source.target) == (source.kind == "table"), name
        for remote in source.files.values():
            assert remote.address.startswith("https://"), name
            assert len(remote.sha256) == 64, name


@pytest.mark.parametrize(
    ("name", "shape", "first"),
    [
        ("iris", (150, 5), "setosa"),
        ("wine", (178, 14), "class_0"),
        ("breast_cancer", (569, 31), "malignant"),
        ("diabetes", (442, 11), 151.0),
    ],
)
def test_bundled_tables(
    name: str, shape: tuple[int, int], first: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path))
    frame, target, test = table_frames(name)
    assert (frame.shape, frame[target].iloc[0], test) == (shape, first, None)
    assert len(frame) == BUILT_IN[name].rows
    assert locate(name) == {}
    assert left_over(tmp_path) == []


def test_diabetes_is_in_its_own_units() -> None:
    assert table_frames("diabetes")[0][["age", "sex", "bmi"]].iloc[0].tolist() == [59, 2, 32.1]


def test_images_are_no_table() -> None:
    with pytest.raises(DataError, match="mnist is a set of images"):
        table_frames("mnist")


def test_adult_from_files_of_its_form(folders: tuple[Path, Path], server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, ?, <=50K"
    files = {"adult-train.csv": f"{row}\n\n".encode(), "adult-test.csv": f"{row}.\n{row.replace('<=', '>')}.\n".encode()}
    server.files = {f"/adult/{name}": body for name, body in files.items()}
    pins = {name: Remote("", hashlib.sha256(body).hexdigest()) for name, body in files.items()}
    monkeypatch.setitem(BUILT_IN, "adult", Source("table", "", 3, "", "income", pins))
    train, target, test = table_frames("adult", mirror=server.address)
    assert test is not None
    assert (len(train), len(test), target) == (1, 2, "income")
    assert train.iloc[0][["workclass", "capital-gain", "income"]].tolist() == ["State-gov", 2174, "<=50K"]
    assert train["occupation"].isna().all()
    assert train["native-country"].isna().all()
    assert test["income"].tolist() == ["<=50K", ">50K"]


@needs_data
def test_real_adult() -> None:
    train, target, test = table_frames("adult")
    assert test is not None
    assert (len(train), len(test)) == (32561, 16281)
    assert set(train[target]) == set(test[target]) == {"<=50K", ">50K"}
    assert round((test[target] == "<=50K").mean(), 4) == 0.7638  # 76.38% in adult.names
    lines = (REAL / "adult" / "adult.names").read_text().splitlines()
    names = [line.partition(":")[0] for line in lines if ":" in line and not line.startswith("|")]
    assert [*names, "income"] == list(ADULT_COLUMNS)


@needs_data
def test_real_housing() -> None:
    frame, target, test = table_frames("california_housing")
    assert (frame.shape, target, test) == ((20640, 10), "median_house_value", None)
    assert frame["total_bedrooms"].isna().sum() == 207


@needs_data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_images(name: str) -> None:
    assert len(locate(name)) == 4
