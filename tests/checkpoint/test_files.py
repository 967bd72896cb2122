"""Tensor and JSON files: readable by others, whole or not there, and never trusted when damaged."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from engram.checkpoint import files
from engram.checkpoint.files import read_json, read_tensors, write_bytes, write_json, write_tensors
from engram.core.errors import RunError
from engram.core.snapshot import Snapshot, on_cpu, pack, unpack

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
]  # fmt: skip
FACTS = {"at": {"step": 3, "best": None}, "text": 'é "quoted" \\ 00000000 "crc32"', "list": [1, 2.5, True]}


def some() -> Snapshot:
    """Odd sizes of every width, so that alignment is earned."""
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(5, 3, 4, 2, generator=g)
    tensors = {
        "weight": whole,
        "bytes": torch.tensor([1, 2, 255], dtype=torch.uint8),
        "yes": torch.tensor([[True], [False], [True]]),
        "half": torch.randn(7, generator=g).bfloat16(),
        "zero-d": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "channels last": whole.contiguous(memory_format=torch.channels_last),
        "transposed": torch.randn(4, 6, generator=g).T,
        "every second": torch.randn(9, generator=g)[::2],
        "expanded": torch.ones(1).expand(4),
        "parameter": nn.Parameter(torch.randn(3, generator=g)),
        "count": torch.tensor(9, dtype=torch.int64),
        'é/"0"': torch.zeros(1, 1),
    }
    return Snapshot(tensors, FACTS)


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, t in wanted.items():
        assert found[name].dtype == t.dtype
        assert found[name].shape == t.shape
        assert torch.equal(found[name], t.detach())


def test_reads_back(tmp_path: Path):
    write_tensors(tmp_path / "a.safetensors", some())
    back = read_tensors(tmp_path / "a.safetensors")
    same(back.tensors, some().tensors)
    assert back.facts == FACTS
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_safetensors_library_reads_it(tmp_path: Path):
    write_tensors(tmp_path / "a.safetensors", some())
    same(load_file(tmp_path / "a.safetensors"), some().tensors)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["engram"]) == FACTS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type(dtype: torch.dtype, tmp_path: Path):
    """Bit for bit, NaN payloads and infinities included, alone and in company of other widths."""
    bits = torch.arange(0, 240, dtype=torch.uint8).repeat(8)[: 24 * dtype.itemsize]
    t = (bits % 2).bool() if dtype is torch.bool else bits.view(dtype)
    path = tmp_path / "a.safetensors"
    write_tensors(path, Snapshot({"odd": torch.ones(3, dtype=torch.uint8), "t": t.reshape(4, -1)}, {}))
    for found in (read_tensors(path).tensors["t"], load_file(path)["t"]):
        assert found.dtype == dtype
        assert torch.equal(found.contiguous().view(torch.uint8), t.reshape(4, -1).contiguous().view(torch.uint8))


def test_a_type_that_the_format_lacks_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match=r"cannot save z: safetensors has no torch.complex128"):
        write_tensors(tmp_path / "a.safetensors", Snapshot({"z": torch.zeros(2, dtype=torch.complex128)}, {}))
    assert os.listdir(tmp_path) == []


def test_nothing_at_all(tmp_path: Path):
    write_tensors(tmp_path / "a.safetensors", Snapshot({}, {"only": "facts"}))
    assert read_tensors(tmp_path / "a.safetensors") == Snapshot({}, {"only": "facts"})
    assert load_file(tmp_path / "a.safetensors") == {}


def test_tensors_begin_where_their_type_wants_them(tmp_path: Path):
    write_tensors(tmp_path / "a.safetensors", some())
    raw = (tmp_path / "a.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    del header["__metadata__"]
    assert size % 8 == 0
    assert len(header) == 13
    for name, entry in header.items():
        assert entry["data_offsets"][0] % some().tensors[name].element_size() == 0


@pytest.mark.parametrize("size", [640, 896, 1152, 1408, 19280])
def test_a_header_whose_size_looks_like_pickle_or_zip(size: int, tmp_path: Path):
    """A header of 640 bytes begins with the two bytes that a pickle begins with: it is still ours."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, Snapshot({"w": torch.ones(2)}, {"pad": ""}))
    pad = size - int.from_bytes(path.read_bytes()[:8], "little")
    write_tensors(path, Snapshot({"w": torch.ones(2)}, {"pad": "x" * pad}))
    assert path.read_bytes()[:8] == size.to_bytes(8, "little")
    assert read_tensors(path).tensors["w"].tolist() == [1, 1]


def test_files_of_other_programs_open(tmp_path: Path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "pt"})
    back = read_tensors(tmp_path / "a.safetensors")
    assert back.tensors["w"].tolist() == [1, 1]
    assert back.facts == {}


def one_line(path: Path, match: str) -> None:
    with pytest.raises(RunError, match=match) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_missing_file(tmp_path: Path):
    one_line(tmp_path / "a.safetensors", "is missing")


def test_a_folder_in_its_place(tmp_path: Path):
    one_line(tmp_path, "cannot read")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -1, -8])
def test_a_truncated_file(kept: int, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, some())
    path.write_bytes(path.read_bytes()[:kept])
    one_line(path, "damaged")


def test_a_file_with_a_tail(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, some())
    path.write_bytes(path.read_bytes() + b"more")
    one_line(path, "damaged")


def test_any_flipped_bit_is_noticed(tmp_path: Path):
    """In the data, the facts, the shapes, the checksum itself or the size of the header."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, Snapshot({"w": torch.arange(6.0), "n": torch.tensor(3)}, {"step": 12, "best": 0.5}))
    good = path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        path.write_bytes(bad)
        one_line(path, "damaged|pickle")


class Bomb:
    """Runs code when a pickle of it is opened."""

    def __reduce__(self):
        return (os._exit, (3,))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickle_is_never_opened(protocol: int, tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"weights": [Bomb()]}, protocol))
    one_line(path, "pickle, which can run code" if protocol >= 2 else "damaged")


def test_a_torch_file_is_never_opened(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    torch.save({"w": torch.ones(2)}, path)
    one_line(path, "pickle, which can run code")
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    one_line(path, "pickle, which can run code")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.pkl", "x")
    path.write_bytes(packed.getvalue())
    one_line(path, "pickle, which can run code")
    path.write_text("hello")
    one_line(path, "damaged")


FAILURES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk is full; free some space",
    errno.EACCES: "no write permission; choose another folder with --out",
    errno.EROFS: "no write permission",
    errno.EIO: "Input/output error",
}


@pytest.mark.parametrize("code", FAILURES)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, some())
    old = path.read_bytes()

    def fails(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, call, fails)
    with pytest.raises(RunError, match=FAILURES[code]) as caught:
        write_tensors(path, Snapshot({"w": torch.ones(9)}, {}))
    assert "\n" not in str(caught.value)
    assert "what was saved before is untouched" in str(caught.value)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is left beside is no state, and the next write replaces it."""
    path = tmp_path / "a.safetensors"
    write_tensors(path, some())

    def dies(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write_tensors(path, Snapshot({"w": torch.ones(9)}, {}))
    same(read_tensors(path).tensors, some().tensors)
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "a.safetensors.tmp"]
    write_tensors(path, Snapshot({"w": torch.ones(9)}, {}))
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_bytes_are_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """fsync of the file, then rename, then fsync of the folder: in that order a power cut leaves one whole file."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (order.append("fsync"), fsync(handle)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_bytes(tmp_path / "a", b"x")
    assert order == ["fsync", "replace", "fsync"]


def test_a_missing_folder(tmp_path: Path):
    with pytest.raises(RunError, match="cannot write"):
        write_bytes(tmp_path / "no" / "a", b"x")


def test_json_is_strict(tmp_path: Path):
    """NaN and infinity are no JSON: they become null, at any depth; numbers, text and order stay."""
    value = {"z": 0.1, "a": [float("nan"), {"b": float("inf")}, (1, -float("inf"))], "text": "Zürich ☂", "none": None}
    write_json(tmp_path / "a.json", value)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = (tmp_path / "a.json").read_text("utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found == {"z": 0.1, "a": [None, {"b": None}, [1, None]], "text": "Zürich ☂", "none": None}
    assert list(found) == ["z", "a", "text", "none"]
    assert read_json(tmp_path / "a.json") == found


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b'{"a": 1}x'])
def test_damaged_json(content: bytes, tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_missing_json(tmp_path: Path):
    with pytest.raises(RunError, match=r"run.json is missing: .* is not a complete run folder"):
        read_json(tmp_path / "run.json")
    with pytest.raises(RunError, match="cannot read"):
        read_json(tmp_path)


def test_pack_and_unpack_nested_state():
    t = torch.arange(3.0)
    state = {0: {"step": 3, "moments": [t, None, (t * 2, -1.5)]}, "text": "a", "yes": True, (1, "x"): {}}
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.loads(json.dumps(pack(state, "o", tensors)))
    back = unpack(skeleton, tensors)
    assert back.keys() == state.keys()
    assert list(map(type, back)) == list(map(type, state))
    assert back[0]["moments"][1] is None
    assert isinstance(back[0]["moments"][2], tuple)
    assert torch.equal(back[0]["moments"][2][0], t * 2)
    back[0]["moments"][0].zero_()
    assert t.tolist() == [0, 1, 2]  # clones
    with pytest.raises(TypeError, match="o/a is a set"):
        pack({"a": {1, 2}}, "o", {})


def test_copies_do_not_follow_the_run():
    t = nn.Parameter(torch.ones(2))
    (copy,) = on_cpu({"t": t}).values()
    with torch.no_grad():
        t.zero_()
    assert copy.tolist() == [1, 1]
    assert not copy.requires_grad
