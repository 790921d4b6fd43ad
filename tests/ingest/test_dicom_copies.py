"""Frames of DICOM slides are copied: chunks are the frames, pixels are those of other readers."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import wsidicom
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from tests.makers.dicoms import write_dicom_level
from wsi_seg.codestreams.metadata import without_comments
from wsi_seg.errors import SlideError, StoreError
from wsi_seg.geometry import Extent
from wsi_seg.ingest.plan import Codec, plan_levels
from wsi_seg.ingest.run import tile_slides
from wsi_seg.ingest.verify import verify_slide
from wsi_seg.progress import Silent
from wsi_seg.slides import open_slide
from wsi_seg.store import open_collection
from wsi_seg.store.shards import Shard
from wsi_seg.testing.store_conformance import zarr_levels

VERBATIM = Codec("verbatim")
SIZE = Extent(height=303, width=333)
ROWS, COLUMNS = 7, 6
Y, X = np.mgrid[: ROWS * 48, : COLUMNS * 64]
# Smooth, because JPEG halves chroma; unlike in all channels.
RGB = np.stack([249 - X % 240, 20 + Y % 200, (X + Y) % 250], axis=2).astype(np.uint8)
LEVEL = RGB[: SIZE.height, : SIZE.width]
TILES = [
    np.ascontiguousarray(RGB[y : y + 48, x : x + 64])
    for y in range(0, ROWS * 48, 48)
    for x in range(0, COLUMNS * 64, 64)
]


def jpeg(pixels, subsampling=0):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=subsampling)
    return file.getvalue()


def jpeg_of_rgb(pixels, *, marked):
    """JPEG whose components are RGB; without the mark nothing in the stream says so."""
    data = bytes(imagecodecs.jpeg8_encode(pixels, level=95, colorspace="RGB", outcolorspace="RGB"))
    if marked:
        return data
    assert data[2:4] == b"\xff\xee"
    plain = bytearray(data[:2] + data[4 + int.from_bytes(data[4:6], "big") :])
    frame, scan = plain.find(b"\xff\xc0"), plain.find(b"\xff\xda")
    for number in range(3):
        plain[frame + 10 + 3 * number] = plain[scan + 5 + 2 * number] = number + 1
    return bytes(plain)


FRAMES = {
    "YBR_FULL_422": lambda tile: jpeg(tile, 1),
    "YBR_FULL": jpeg,
    "RGB, unmarked": lambda tile: jpeg_of_rgb(tile, marked=False),
    "RGB, marked": lambda tile: jpeg_of_rgb(tile, marked=True),
    "RGB, in truth YCbCr": jpeg,
    "MONOCHROME2": lambda tile: jpeg(tile[..., 0]),
}


def write(path, frames, *, colours="YBR_FULL_422", syntax=JPEGBaseline8Bit, pack=encapsulate,
          sparse=None, first=0, number=1, size=LEVEL):  # fmt: skip
    """Write a level whose frames are these; ``first`` is that of a part of a concatenation."""
    write_dicom_level(path, size, number=number, sparse=sparse)
    header = dcmread(path)
    header.file_meta.TransferSyntaxUID = syntax
    header.PhotometricInterpretation = colours
    if colours.startswith("MONOCHROME"):
        header.SamplesPerPixel = 1
        del header.PlanarConfiguration
    header.NumberOfFrames = len(frames)
    if first:
        header.ConcatenationFrameOffsetNumber = first
    packed = pack(frames)
    if isinstance(packed, tuple):
        packed, header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = packed
    header.PixelData = packed
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = syntax.is_encapsulated
    header.save_as(path)
    return path


def tiled(source, out, codec=VERBATIM):
    """Tile one slide; give back its store, read the same by us and by zarr."""
    tile_slides([source], out, codec=codec, progress=Silent()).require_whole()
    (store,) = open_collection(out)
    with open_slide(source) as slide:
        for level, extent in enumerate(slide.pyramid.extents):
            expected = slide.read(extent.region(level))
            assert np.array_equal(store.image.read(extent.region(level)), expected)
            assert np.array_equal(zarr_levels(store.path)[level], expected)
    assert verify_slide(store, Path(source)).pixels > 0
    return store


def chunks(store, level=0):
    """Bytes of each chunk by its row and column; those that are missing are left out."""
    array = store.image.arrays[level]
    rows, columns = array.grid
    found = {}
    for shard_row in range(-(-array.extent.height // array.shard.height)):
        for shard_column in range(-(-array.extent.width // array.shard.width)):
            with Shard(array.shard_path(shard_row, shard_column), rows * columns) as shard:
                index = shard.index()
                assert index is not None
                for place, (offset, nbytes) in enumerate(index.tolist()):
                    row, column = divmod(place, columns)
                    if offset < 2**63:
                        cell = shard_row * rows + row, shard_column * columns + column
                        found[cell] = shard.read(offset, nbytes)
    return found


def by_place(frames):
    return {divmod(number, COLUMNS): frame for number, frame in frames.items()}


def even(frame):
    """Frame as it is in its item, whose length is even."""
    return frame + b"\0" * (len(frame) % 2)


@pytest.mark.parametrize("kind", FRAMES)
def test_colours(tmp_path, kind):
    frames = [FRAMES[kind](tile) for tile in TILES]
    path = write(tmp_path / "a.dcm", frames, colours=kind.partition(",")[0])
    store = tiled(path, tmp_path / "s.zarr")
    assert chunks(store) == by_place(dict(enumerate(map(even, frames))))
    assert store.image.arrays[0].encoding.jpeg_rgb == (kind == "RGB, unmarked")
    found = store.image.read(SIZE.region(0)).astype(int)
    expected = LEVEL[..., :1] if kind == "MONOCHROME2" else LEVEL
    assert np.abs(found - expected).mean() < 2


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_wsidicom_finds_the_same_pixels(tmp_path, subsampling):
    folder = tmp_path / "slide"
    folder.mkdir()
    write(folder / "a.dcm", [jpeg(tile, subsampling) for tile in TILES])
    store = tiled(folder, tmp_path / "s.zarr")
    with wsidicom.WsiDicom.open(folder) as theirs:
        found = theirs.read_region((0, 0), 0, (SIZE.width, SIZE.height))
    assert np.array_equal(store.image.read(SIZE.region(0)), np.asarray(found)[..., :3])


PACKED = {
    "one piece": encapsulate,
    "several pieces": lambda frames: encapsulate(frames, fragments_per_frame=3),
    "no table": lambda frames: encapsulate(frames, has_bot=False),
    "extended table": encapsulate_extended,
}


@pytest.mark.parametrize("how", PACKED)
def test_pieces_and_tables(tmp_path, how):
    frames = [jpeg(tile, 1) for tile in TILES]
    path = write(tmp_path / "a.dcm", frames, pack=PACKED[how])
    header = dcmread(path)
    extended = header.get("ExtendedOffsetTable")
    tables = (extended, header.ExtendedOffsetTableLengths) if extended else None
    theirs = generate_frames(header.PixelData, number_of_frames=42, extended_offsets=tables)
    found = chunks(tiled(path, tmp_path / "s.zarr"))
    assert {cell: data.rstrip(b"\0") for cell, data in found.items()} == by_place(
        {number: frame.rstrip(b"\0") for number, frame in enumerate(theirs)}
    )


def test_sparse_frames_and_frames_left_out(tmp_path):
    kept = [41, 7, 8, 0, 30]
    frames = {number: even(jpeg(TILES[number], 1)) for number in kept}
    path = write(tmp_path / "a.dcm", list(frames.values()), sparse=kept)
    store = tiled(path, tmp_path / "s.zarr")
    assert chunks(store) == by_place(frames)
    found = store.image.read(SIZE.region(0))
    assert (found[:48, 64:128] == 255).all()


def test_frames_left_out_that_are_coloured_are_recoded(tmp_path):
    path = write(tmp_path / "a.dcm", [jpeg(TILES[0], 1)], sparse=[0])
    header = dcmread(path)
    header.RecommendedAbsentPixelCIELabValue = [30000, 60000, 20000]
    header.save_as(path)
    tiled(path, tmp_path / "s.zarr", Codec())
    assert "missing frames that are not grey" in plan_levels(open_slide(path))[0].reason


def test_parts_of_a_concatenation_and_levels(tmp_path):
    folder = tmp_path / "slide"
    folder.mkdir()
    frames = [even(jpeg(tile, 1)) for tile in TILES]
    for number, (first, last) in enumerate([(0, 13), (13, 14), (14, 42)], 1):
        write(folder / f"{number}.dcm", frames[first:last], first=first, number=number)
    small = np.ascontiguousarray(TILES[9][:40, :60])
    write(folder / "9.dcm", [even(jpeg(TILES[9]))], number=9, size=small)
    store = tiled(folder, tmp_path / "s.zarr")
    assert chunks(store) == by_place(dict(enumerate(frames)))
    assert chunks(store, 1) == {(0, 0): even(jpeg(TILES[9]))}


def test_parts_of_several_kinds_are_recoded(tmp_path):
    folder = tmp_path / "slide"
    folder.mkdir()
    write(folder / "1.dcm", [jpeg(tile) for tile in TILES[:20]])
    rest = [jpeg_of_rgb(tile, marked=False) for tile in TILES[20:]]
    write(folder / "2.dcm", rest, colours="RGB", first=20, number=2)
    store = tiled(folder, tmp_path / "s.zarr", Codec())
    assert np.abs(store.image.read(SIZE.region(0)).astype(int) - LEVEL).mean() < 2
    assert "several encodings" in plan_levels(open_slide(folder))[0].reason


JPEG_2000 = {
    JPEG2000Lossless: lambda tile: imagecodecs.jpeg2k_encode(
        tile, codecformat="J2K", mct=True, level=0
    ),
    HTJ2KLossless: lambda tile: imagecodecs.htj2k_encode(tile, rgb=True, reversible=True),
}


@pytest.mark.parametrize("syntax", JPEG_2000)
def test_jpeg_2000_is_copied_as_of_tiff(tmp_path, syntax):
    frames = [even(bytes(JPEG_2000[syntax](tile))) for tile in TILES]
    path = write(tmp_path / "a.dcm", frames, colours="YBR_RCT", syntax=syntax)
    store = tiled(path, tmp_path / "s.zarr")
    plain = [without_comments(frame, "jpeg2k") for frame in frames]
    assert chunks(store) == by_place(dict(enumerate(plain)))
    assert np.array_equal(store.image.read(SIZE.region(0)), LEVEL)


def ycbcr(tile):
    return np.ascontiguousarray(Image.fromarray(tile).convert("YCbCr"))


def j2k(tile):
    return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="J2K", mct=False, level=0))


def joined(frames):
    return b"".join(frames)


RECODED = {
    "uncompressed frames": (ExplicitVRLittleEndian, "RGB", lambda tile: tile.tobytes(), joined),
    "jpeg-ls frames": (
        JPEGLSLossless, "RGB", lambda tile: bytes(imagecodecs.jpegls_encode(tile)), encapsulate,
    ),
    "jpeg 2000 in YBR_FULL": (
        JPEG2000Lossless, "YBR_FULL", lambda tile: j2k(ycbcr(tile)), encapsulate,
    ),
    "grey where 0 is white": (
        JPEGBaseline8Bit, "MONOCHROME1", lambda tile: jpeg(tile[..., 0]), encapsulate,
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", RECODED)
def test_others_are_recoded(tmp_path, reason):
    syntax, colours, encode, pack = RECODED[reason]
    frames = [encode(tile) for tile in TILES]
    path = write(tmp_path / "a.dcm", frames, syntax=syntax, colours=colours, pack=pack)
    (plan,) = plan_levels(open_slide(path))
    assert (plan.encoding, plan.reason) == ("zstd", reason)
    tiled(path, tmp_path / "s.zarr", Codec())


def test_comments_are_left_out(tmp_path):
    frames = [jpeg(tile, 1) for tile in TILES]
    noted = [frame[:2] + b"\xff\xfe\x00\x0aDoe^John" + frame[2:] for frame in frames]
    path = write(tmp_path / "a.dcm", noted)
    store = tiled(path, tmp_path / "s.zarr")
    assert chunks(store) == by_place(dict(enumerate(map(even, frames))))
    assert not [file for file in store.path.rglob("*") if file.is_file()
                and b"Doe" in file.read_bytes()]  # fmt: skip


def test_a_damaged_frame_is_found(tmp_path):
    frames = [jpeg(tile, 1) for tile in TILES]
    path = write(tmp_path / "a.dcm", [*frames[:5], frames[5][:40], *frames[6:]])
    with pytest.raises(StoreError, match=r"row=0 column=5 .* its JPEG stream is truncated"):
        tile_slides([path], tmp_path / "s.zarr", codec=VERBATIM, progress=Silent())
    with pytest.raises(SlideError, match="frame 5 is damaged"):
        open_slide(path).read(SIZE.region(0))


def test_the_frame_of_a_real_file(tmp_path, shared_data):
    source = shared_data / "dicom" / "openslide" / "boxes_0.dcm"
    header = dcmread(source)
    (frame,) = generate_frames(header.PixelData, number_of_frames=1)
    assert chunks(tiled(source, tmp_path / "s.zarr")) == {(0, 0): frame}
