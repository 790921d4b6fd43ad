"""Owns ``python -m wsi_seg``, which is the program ``wsi-seg``."""

from wsi_seg.cli.app import main

if __name__ == "__main__":
    main()
