"""Synthesise X-rays for real run-length encoded masks, because the real X-rays are not available.

Each image of the CSV gets a synthetic chest X-ray (DICOM, 1024 x 1024) that is darker, and without
vessels, inside its mask. Half of the images have no finding, as in the CSV.

    python prepare.py TRAIN_CSV OUT [--images 60]
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from wsi_seg.annotations.rle import decode_rle
from wsi_seg.testing.phantoms import phantom_xray

SIDE = 1024
DIGITAL_XRAY = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture


def main() -> None:
    """Write the X-rays and their rows of the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=60)
    options = parser.parse_args()
    masks: dict[str, list[str]] = {}
    with options.table.open() as file:
        for row in csv.DictReader(file):
            masks.setdefault(row["ImageId"], []).append(row["EncodedPixels"].strip())
    positive = [name for name, runs in masks.items() if runs != ["-1"]]
    negative = [name for name, runs in masks.items() if runs == ["-1"]]
    half = options.images // 2
    chosen = positive[:half] + negative[: options.images - half]
    (options.out / "dicom").mkdir(parents=True, exist_ok=True)
    with (options.out / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "EncodedPixels"])
        for number, name in enumerate(chosen):
            finding = np.zeros((SIDE, SIDE), dtype=bool)
            for runs in masks[name]:
                writer.writerow([name, runs])
                if runs != "-1":
                    finding |= decode_rle(runs, height=SIDE, width=SIDE, dialect="relative")
            write_dicom(options.out / "dicom" / f"{name}.dcm", phantom_xray(finding, number))
    print(f"{len(chosen)} X-rays, {half} with a finding")


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    """Write grey pixels as an uncompressed DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DIGITAL_XRAY
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.stem])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = DIGITAL_XRAY, meta.MediaStorageSOPInstanceUID
    file.Modality = "CR"
    file.SeriesInstanceUID = generate_uid(entropy_srcs=[path.stem, "series"])
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main()
