"""Nothing that a file says of patients, days and machines gets into a store."""

import imagecodecs
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from PIL import Image, PngImagePlugin
from pydicom import Dataset, dcmread

from tests.makers.dicoms import write_dicom_image, write_dicom_level
from tests.makers.omezarrs import write_ome_zarr
from wsi_seg.errors import StoreError
from wsi_seg.ingest.privacy import require_allowed
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection

SECRETS = ("Zebulon^Quist", "19310713", "SN-778899", "free text of the operator", "1.2.826.0.1.77")
MARKER = np.frombuffer(b"LABEL PICTURE!" * 2, np.uint8)[:27].reshape(9, 3)
PIXELS = (np.arange(128 * 160 * 3) % 60 + 150).astype(np.uint8).reshape(128, 160, 3)
ALL = " ".join(SECRETS)


def label(height=48, width=63):
    """A picture whose pixels are a text: 'LABEL PICTURE!' again and again."""
    return np.resize(MARKER, (height, width, 3))


def segment(marker):
    text = ALL.encode()
    return bytes([0xFF, marker]) + (len(text) + 2).to_bytes(2, "big") + text


def write_svs(path):
    """An Aperio file whose tiles, tags, label and macro carry all of it."""
    tiles = []
    for y in range(0, 128, 64):
        for x in range(0, 192, 64):
            part = np.zeros((64, 64, 3), np.uint8)
            inside = PIXELS[y : y + 64, x : x + 64]
            part[: inside.shape[0], : inside.shape[1]] = inside
            stream = bytes(imagecodecs.jpeg8_encode(part, level=90))
            tiles.append(stream[:2] + segment(0xFE) + segment(0xE1) + stream[2:])
    description = f"Aperio Image Library v12\r\n160x128|AppMag = 20|MPP = 0.5|User = {ALL}"
    tags: list[tuple[int, str, int, str | bytes, bool]] = [
        (tag, "s", 0, ALL, True) for tag in (270 + 1, 272, 315, 316, 33432)
    ]
    tags.append((700, "B", len(ALL), ALL.encode(), True))
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles), shape=PIXELS.shape, dtype="uint8", tile=(64, 64), photometric="ycbcr",
            compression="jpeg", subsampling=(2, 2), description=description, metadata=None,
            software=ALL, datetime="1931:07:13 00:00:00", extratags=tags,
        )  # fmt: skip
        for name in ("label", "macro"):
            tiff.write(
                label(), photometric="rgb", metadata=None, description=f"Aperio {name} {ALL}"
            )


def write_microscopy(folder):
    folder.mkdir()
    write_dicom_level(folder / "0.dcm", PIXELS, number=0, frames="jpeg")
    write_dicom_level(folder / "1.dcm", label(), number=1, flavour="LABEL")
    write_dicom_level(folder / "2.dcm", label(), number=2, flavour="OVERVIEW")
    for path in sorted(folder.iterdir()):
        header = dcmread(path)
        header.update(patient_fields())
        header.save_as(path)


def patient_fields():
    found = Dataset()
    found.PatientName, found.PatientID = SECRETS[0], SECRETS[2]
    found.PatientBirthDate = found.StudyDate = found.AcquisitionDate = SECRETS[1]
    found.DeviceSerialNumber, found.ImageComments = SECRETS[2], SECRETS[3]
    found.InstitutionName = found.OperatorsName = found.StudyDescription = SECRETS[0]
    found.FrameOfReferenceUID = SECRETS[4]
    found.add_new(0x00110010, "LO", "private")
    found.add_new(0x00111001, "LT", ALL)
    return found


def write_radiograph(path):
    write_dicom_image(path, PIXELS[..., 0])
    header = dcmread(path)
    header.update(patient_fields())
    header.save_as(path)


def write_zarr(path):
    zarr.open_group(path, mode="w", zarr_format=2).attrs.update(
        {"bioformats2raw.layout": 3, "note": ALL}
    )
    more = {"omero": {"name": ALL}, "acquired": SECRETS[1], "patient": {"name": SECRETS[0]}}
    write_ome_zarr(path / "0", [PIXELS], version="0.4", mpp=0.5, attributes=more)
    write_ome_zarr(path / "1", [label()], version="0.4", attributes=more)
    (path / "OME").mkdir()
    images = "".join(f"<Image Name='{name}'><Pixels/></Image>" for name in (ALL, "label image"))
    (path / "OME" / "METADATA.ome.xml").write_text(f"<OME>{images}</OME>")


def write_volume(path):
    image = SimpleITK.GetImageFromArray(np.repeat(PIXELS[None, ..., 0], 2, axis=0))
    image.SetMetaData("Comment", ALL)
    SimpleITK.WriteImage(image, str(path))


def write_nifti(path):
    write_volume(path)
    data = bytearray(path.read_bytes())
    text = ALL.encode()[:79]
    data[148 : 148 + len(text)] = text  # the field "descrip"
    path.write_bytes(data)


def write_png(path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", ALL)
    exif = Image.Exif()
    exif[0x010E], exif[0x0132] = ALL, "1931:07:13 00:00:00"
    Image.fromarray(PIXELS).save(path, pnginfo=text, exif=exif)


WRITERS = {
    "scan.svs": write_svs,
    "scan": write_microscopy,
    "cr.dcm": write_radiograph,
    "scan.zarr": write_zarr,
    "ct.mha": write_volume,
    "ct.nii": write_nifti,
    "photo.png": write_png,
}


def everything(folder):
    """Names and bytes of all files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = "\n".join(str(path.relative_to(folder)) for path in files)
    return names.encode() + b"".join(path.read_bytes() for path in files)


@pytest.mark.parametrize("name", WRITERS)
def test_secrets_stay_outside(tmp_path, name):
    source = tmp_path / "slides" / name
    source.parent.mkdir()
    WRITERS[name](source)
    before = everything(source.parent)
    planted = [secret.encode() for secret in SECRETS if secret.encode() in before]
    assert planted, "the test planted nothing"
    tile_slides([source.parent], tmp_path / "out.zarr", progress=Silent())
    stored = everything(tmp_path / "out.zarr")
    assert not [secret for secret in SECRETS if secret.encode() in stored]
    assert b"1931:07" not in stored
    assert b"LABEL PICTURE" not in stored
    for store in open_collection(tmp_path / "out.zarr"):
        for level, extent in enumerate(store.pyramid.extents):
            whole = extent.region(level)
            found = store.image.read(whole)
            assert found.min() >= 100, "pixels of a label are darker than any of the slide"


def test_the_svs_is_copied_verbatim(tmp_path):
    write_svs(tmp_path / "scan.svs")
    report = tile_slides([tmp_path / "scan.svs"], tmp_path / "out.zarr", progress=Silent())
    assert report.slides[0].levels[0] == "verbatim jpeg"


@pytest.mark.parametrize(
    "attributes",
    [
        {"kind": "slide", "description": "anything"},
        {"source": {"name": "a.svs", "patient": "x"}},
        {"levels": [{"encoding": "zstd"}, {"note": "x"}]},
        {"reader": "Aperio Image Library, scanned by the operator for Mrs Q."},
        {"mpp_source": "line\nbreak"},
    ],
)
def test_only_what_is_listed_passes(attributes):
    with pytest.raises(StoreError, match="must not contain metadata"):
        require_allowed(attributes)
    require_allowed({"kind": "slide", "source": {"name": "a.svs"}, "reader": "svs", "mpp": None})
