"""Generate CT phantoms with known nodules, because the original volumes are not available.

python prepare.py OUT [--volumes 6]
"""

import argparse
import csv
from pathlib import Path

from wsi_seg.testing.phantoms import phantom_ct, write_mhd

SPACING = (2.5, 1.2, 1.2)


def main() -> None:
    """Write the volumes, their nodules in the LUNA16 format, and a rule for their lungs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--volumes", type=int, default=6)
    options = parser.parse_args()
    (options.out / "ct").mkdir(parents=True, exist_ok=True)
    with (options.out / "nodules.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"])
        for number in range(options.volumes):
            name = f"phantom{number}"
            volume, nodules = phantom_ct(number, spacing=SPACING)
            write_mhd(options.out / "ct" / f"{name}.mhd", volume, SPACING)
            for n in nodules:
                writer.writerow([name, f"{n.x:.2f}", f"{n.y:.2f}", f"{n.z:.2f}", n.diameter])
    # The phantoms are 8 cm high, so their lungs are smaller than human ones.
    (options.out / "lungs.yaml").write_text("rule: {volume_l: [0.3, 8.2]}\n")
    print(f"{options.volumes} volumes")


if __name__ == "__main__":
    main()
