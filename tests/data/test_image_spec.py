"""Images of every mode, size and defect through ImageSpec."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engram.core.errors import DataError
from engram.data import decode as decoding
from engram.data.decode import header
from engram.data.image_spec import ImageSpec

torch.set_num_threads(1)
RED = (200, 40, 80)


def spec(channels: int = 3, height: int = 4, width: int = 4, crop: str = "crop") -> ImageSpec:
    return ImageSpec(
        channels=channels,
        height=height,
        width=width,
        mean=(0.5, 0.25, 0.125)[:channels],
        std=(0.5, 0.25, 0.2)[:channels],
        classes=("cat", "dog"),
        class_counts=(3, 1),
        crop=crop,  # type: ignore[arg-type]
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is huge, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_pixels_of_the_right_shape_pass_unchanged(tmp_path: Path) -> None:
    rgb = noise(4, 4, 3)
    got = spec().decode_uint8(png(tmp_path / "a.png", rgb))
    assert got.dtype == torch.uint8
    assert np.array_equal(got.numpy(), rgb.transpose(2, 0, 1))


def test_encode_normalises_by_channel(tmp_path: Path) -> None:
    rgb = noise(4, 4, 3)
    x = spec().encode(png(tmp_path / "a.png", rgb))["x"]
    expected = (rgb.transpose(2, 0, 1) / 255 - np.array([0.5, 0.25, 0.125])[:, None, None]) / np.array([0.5, 0.25, 0.2])[
        :, None, None
    ]
    assert x.shape == (1, 3, 4, 4)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[0].numpy(), expected, atol=1e-5)


def test_picture_is_the_inverse_of_encode() -> None:
    for channels in (1, 3):
        s = spec(channels)
        raw = noise(4, 4, channels)
        picture = s.picture(s.encode(raw)["x"][0])
        assert np.array_equal(np.asarray(picture).reshape(4, 4, channels), raw)
        assert torch.equal(s.encode(picture)["x"], s.encode(raw)["x"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "PA", "RGBX"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_spec_channels(mode: str, channels: int) -> None:
    white = Image.new("L", (4, 4), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    elif mode in ("I", "F"):
        image = Image.fromarray(np.full((4, 4), 65535 if mode == "I" else 1.0, np.int32 if mode == "I" else np.float32))
    else:
        image = white.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr", "HSV", "RGBX") else white.convert(mode)
    assert image.mode == mode
    got = spec(channels).decode_uint8(image)
    assert got.shape == (channels, 4, 4)
    assert (got == 255).all()


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    got = spec(1, 1, 4).decode_uint8(png(tmp_path / "deep.png", deep))
    assert got.flatten().tolist() == [0, 1, 128, 255]
    assert header(tmp_path / "deep.png").grey


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "grey tRNS"])
def test_transparent_parts_are_white(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.png"
    if kind == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(path, transparency=0)
    elif kind == "grey tRNS":
        Image.new("L", (4, 4), 7).save(path, transparency=7)
    else:
        Image.new(kind, (4, 4), 0).save(path)
    assert (spec().decode_uint8(path) == 255).all()


def test_half_transparent_is_mixed_with_white() -> None:
    got = spec().decode_uint8(Image.new("RGBA", (4, 4), (0, 100, 255, 51)))  # 20 % opaque
    assert got[:, 0, 0].tolist() == [204, 224, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_turned(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8] = 255  # white top left
    upright[:8, 8:] = (255, 0, 0)  # red top right
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL transpositions that the camera applied
    image = Image.fromarray(upright)
    if orientation in undo:
        image = image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "o.jpg", exif=exif, quality=100, subsampling=0)
    got = spec(3, 16, 16).decode_uint8(tmp_path / "o.jpg").int()
    assert (got - torch.from_numpy(upright.transpose(2, 0, 1)).int()).abs().max() < 12


def test_header_turns_the_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 10)).save(tmp_path / "o.jpg", exif=exif)
    found = header(tmp_path / "o.jpg")
    assert (found.width, found.height, found.mode) == (10, 30, "RGB")


def test_header_does_not_decode(tmp_path: Path) -> None:
    path = png(tmp_path / "cut.png", noise(40, 30, 3))
    path.write_bytes(path.read_bytes()[:500])
    assert (header(path).width, header(path).height) == (30, 40)


def test_crop_keeps_the_middle_and_the_proportions() -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    assert (spec(1, 4, 4, "crop").decode_uint8(wide) == 255).all()
    assert (spec(1, 2, 2, "crop").decode_uint8(wide) == 255).all()


def test_crop_is_centred_between_pixels() -> None:
    ramp = np.tile(np.arange(25, dtype=np.uint8) * 10, (20, 1))  # 5 columns too many: 2.5 on each side
    row = spec(1, 4, 4, "crop").decode_uint8(ramp)[0, 0].int()
    assert abs(int(row[2] - row[1]) - 50) <= 1
    assert abs(int(row[1] + row[2]) - 240) <= 1


def test_pad_keeps_everything_and_fills_with_the_border() -> None:
    wide = np.full((4, 8), 90, np.uint8)
    wide[1:3, 2:6] = 10
    got = spec(1, 8, 8, "pad").decode_uint8(wide)[0]
    assert (got[2:6] == torch.from_numpy(wide)).all()
    assert (got[:2] == 90).all()
    assert (got[6:] == 90).all()


def test_stretch_changes_the_proportions() -> None:
    half = np.zeros((4, 8), np.uint8)
    half[:, 4:] = 255
    got = spec(1, 4, 4, "stretch").decode_uint8(half)[0]
    assert (got[:, :1] == 0).all()
    assert (got[:, 3:] == 255).all()


def test_downscaling_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # one pixel black, one white
    got = spec(1, 8, 8).decode_uint8(stripes).float()
    assert (got - 127.5).abs().max() < 12


def test_a_single_pixel_and_a_20000_wide_image(tmp_path: Path) -> None:
    assert (spec(1, 4, 4).decode_uint8(Image.new("L", (1, 1), 77)) == 77).all()
    strip = np.full((4, 20000), 50, np.uint8)
    strip[:, 9990:10010] = 200
    path = png(tmp_path / "wide.png", strip)
    assert (spec(1, 8, 8, "crop").decode_uint8(path) == 200).all()
    assert spec(1, 8, 8, "pad").decode_uint8(path).shape == (1, 8, 8)


def test_a_huge_jpeg_is_reduced_while_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (2000, 400), RED).save(tmp_path / "big.jpg", quality=95)
    Image.new("RGB", (2000, 400), RED).save(tmp_path / "big.png")
    Image.new("RGB", (2000, 400), RED).save(tmp_path / "progressive.jpg", progressive=True)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 200_000)
    got = spec(3, 8, 8).decode_uint8(tmp_path / "big.jpg").int()
    assert (got - torch.tensor(RED)[:, None, None]).abs().max() < 6
    for name in ("big.png", "progressive.jpg"):
        with pytest.raises(DataError, match=rf"{name} has 2,000 x 400 pixels \(at most 200,000\)"):
            spec(3, 8, 8).decode_uint8(tmp_path / name)


def test_small_jpegs_are_not_reduced_below_twice_the_size(tmp_path: Path) -> None:
    array = noise(64, 64, 3)
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
        assert torch.equal(spec(3, 30, 30).decode_uint8(tmp_path / "a.jpg"), spec(3, 30, 30).decode_uint8(image))


@pytest.mark.parametrize(("width", "height"), [(20_000, 5_000), (20_000, 20_000), (2_000_000_000, 2_000_000_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    with pytest.raises(DataError, match=r"bomb\.png .*67,108,864") as caught:
        spec().decode_uint8(tmp_path / "bomb.png")
    assert "\n" not in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "head.jpg").write_bytes(whole[:30])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image at all", "utf-8")
    (tmp_path / "lies.png").write_bytes(bomb(50, 50))
    for name in ("cut.jpg", "head.jpg", "empty.png", "text.png", "lies.png", "missing.png"):
        with pytest.raises(DataError, match=name) as caught:
            spec().encode([noise(4, 4, 3), tmp_path / name])
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is a folder"):
        spec().encode(tmp_path)
    with pytest.raises(DataError, match="0 bytes"):
        spec().encode(str(tmp_path / "empty.png"))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert spec().decode_uint8(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


def test_array_and_tensor_layouts() -> None:
    s, grey = spec(), spec(1)
    rgb = noise(2, 4, 4, 3)
    whole = s.encode(rgb)["x"]
    assert whole.shape == (2, 3, 4, 4)
    assert torch.equal(s.encode(list(rgb))["x"], whole)
    assert torch.equal(s.encode(torch.from_numpy(rgb).permute(0, 3, 1, 2))["x"], whole)
    assert torch.equal(s.encode([torch.from_numpy(rgb[0]).permute(2, 0, 1), Image.fromarray(rgb[1])])["x"], whole)
    flat = noise(2, 4, 5)
    assert torch.equal(grey.encode(flat)["x"], grey.encode([flat[0], flat[1][..., None]])["x"])
    assert torch.equal(grey.encode(torch.from_numpy(flat[0]))["x"][0], grey.encode(flat)["x"][0])
    assert torch.equal(s.encode(flat[0])["x"][0, 0], spec().encode(np.repeat(flat[0][..., None], 3, 2))["x"][0, 0])
    assert grey.encode(noise(3, 4, 5))["x"].shape == (3, 1, 4, 4)
    with pytest.raises(DataError, match="channels first"):
        s.encode(noise(3, 4, 5))
    for bad in (noise(5), noise(2, 4, 5, 5), np.zeros((0, 4, 3), np.uint8), torch.zeros(7, 4, 4)):
        with pytest.raises(DataError, match="is not images"):
            s.encode(bad)
    for bad in ([], {"a": 1}, None, 3):
        with pytest.raises(DataError, match="is not an image"):
            s.encode(bad)
    with pytest.raises(DataError, match="2 were given"):
        s.decode_uint8(rgb)


def test_ranges_of_numbers_are_unambiguous() -> None:
    s = spec(1)
    u8 = noise(4, 4)
    expected = s.encode(u8)["x"]
    for same in (
        u8 / 255,
        (u8 / 255).astype(np.float32),
        u8.astype(np.int64),
        u8.astype(np.uint16) * 257,
        torch.from_numpy(u8 / 255),
    ):
        assert torch.equal(s.encode(same)["x"], expected)
    assert s.decode_uint8(u8 > 127).unique().tolist() == [0, 255]
    bf16 = torch.ones(4, 4, dtype=torch.bfloat16)
    assert (s.decode_uint8(bf16) == 255).all()
    for bad in (np.full((4, 4), 16.0), np.full((4, 4), -0.1), np.full((4, 4), np.nan), np.full((4, 4), 255.0)):
        with pytest.raises(DataError, match=r"must be in 0\.\.1"):
            s.encode(bad)
    for bad in (np.full((4, 4), 256), np.full((4, 4), -1)):
        with pytest.raises(DataError, match=r"must be in 0\.\.255"):
            s.encode(bad)
    with pytest.raises(DataError, match="must hold numbers"):
        s.encode(np.full((4, 4), "a"))


def test_json_keeps_the_spec() -> None:
    import json

    s = spec()
    assert ImageSpec.from_json(json.loads(json.dumps(s.to_json()))) == s
    assert s.to_json()["kind"] == "ImageSpec"
    assert s.example(3)["x"].shape == (3, 3, 4, 4)
    assert s.balanced_weights() == (4 / 6, 4 / 2)


def test_read_streams_files_folders_and_lists(tmp_path: Path) -> None:
    for name in ("b.png", "sub/ä ö.png", "a.png", ".hidden.png", "sub/.dir/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        if name.endswith("png"):
            png(tmp_path / name, noise(4, 4, 3))
        else:
            (tmp_path / name).write_text("no image", "utf-8")
    png(tmp_path / "bare", noise(4, 4, 3), format="PNG")
    s = spec()
    chunks = list(s.read(tmp_path, rows=2))
    assert [names for names, _ in chunks] == [["a.png", "b.png"], ["bare", "sub/ä ö.png"]]
    assert all(s.encode(raw)["x"].shape == (2, 3, 4, 4) for _, raw in chunks)
    assert next(s.read(str(tmp_path / "a.png")))[0] == ["a.png"]
    assert next(s.read([tmp_path / "a.png", noise(4, 4, 3)]))[0] == [str(tmp_path / "a.png"), "image 2"]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        list(s.read(tmp_path / "none"))


def test_read_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s = spec()
    path = png(tmp_path / "é.png", noise(4, 4, 3))

    def given(data: bytes) -> list[tuple[list[str], list[object]]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return list(s.read("-", rows=2))

    [(names, raw)] = given(path.read_bytes())
    assert names == ["standard input"]
    assert torch.equal(s.encode(raw)["x"], s.encode(path)["x"])
    bmp = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).save(bmp, "BMP")
    assert torch.equal(s.encode(given(bmp.getvalue())[0][1])["x"], s.encode(path)["x"])
    chunks = given(f"{path}\n\n{path}\r\n{path}".encode())
    assert [len(names) for names, _ in chunks] == [2, 1]
    assert torch.equal(s.encode(chunks[0][1])["x"][1:], s.encode(path)["x"])
    for bad in (b"", b"\n", b"abc\0def\n"):
        with pytest.raises(DataError, match="standard input"):
            given(bad)


def test_labelled_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        png(tmp_path / name, noise(4, 4, 3, seed=len(name) + int(name[4])))
    s = spec()
    for bad in ("cat/0.png", "dog/1.png"):
        (tmp_path / bad).write_bytes(b"")
    for known in (s, replace(s, classes=())):
        with pytest.warns(UserWarning, match=r"2 of 5 images cannot be read and are left out; the first: .*0\.png is empty"):
            batches = list(known.labelled(tmp_path, rows=1))
        good = [tmp_path / name for name in ("cat/1.png", "dog/0.png", "dog/2.png")]
        assert torch.equal(torch.cat([b["x"] for b in batches]), s.encode(good)["x"])
    with pytest.warns(UserWarning, match="2 of 5"):
        assert [b["y"].tolist() for b in s.labelled(tmp_path, rows=3)] == [[0, 1], [1]]
    (tmp_path / "dog/0.png").unlink()
    (tmp_path / "dog/0.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match="3 of 5 images cannot be read; the first"):
        list(s.labelled(tmp_path))


def test_labelled_reads_class_folders(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png", "test/dog/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        png(tmp_path / name, noise(4, 4, 3, seed=len(name) + ("2" in name)))
    s = spec()
    batches = list(s.labelled(tmp_path, rows=2))
    assert torch.cat([b["y"] for b in batches]).tolist() == [0, 1, 1]
    assert torch.equal(batches[1]["x"], s.encode(tmp_path / "test/dog/2.png")["x"])
    (tmp_path / "test/dog").rename(tmp_path / "test/dgo")
    with pytest.raises(DataError, match=r"'dgo'.*did you mean dog"):
        list(s.labelled(tmp_path))
