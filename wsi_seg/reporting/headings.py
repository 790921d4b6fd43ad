"""Owns the headings of scores and settings in reports: the field's spelling, and units."""

# Headings of keys that are not words, and the spelling of words inside others.
_KEYS = {
    "tp": "true, px", "fp": "false, px", "fn": "missed, px", "seconds": "time, s",
    "lr": "learning rate", "mpp": "µm per pixel", "tiles_per_second": "tiles per s",
    "mpx_per_second": "Mpx per s", "patches_per_second": "patches per s",
}  # fmt: skip
_WORDS = {
    "dice": "Dice", "iou": "IoU", "f1": "F1", "pq": "PQ", "ap": "AP",
    "hd95": "HD95", "sd": "SD", "tta": "TTA",
}  # fmt: skip
_UNITS = {"_um2": "µm²", "_um": "µm", "_px": "px", "_seconds": "s", "_mm": "mm"}


def heading(key: str) -> str:
    """Return the heading of a key, with its unit.

    Examples
    --------
    >>> heading("hd95_mean_um"), heading("val_pooled_dice"), heading("fp")
    ('HD95 mean, µm', 'val pooled Dice', 'false, px')
    """
    if key in _KEYS:
        return _KEYS[key]
    for ending, unit in _UNITS.items():
        if key.endswith(ending):
            return f"{heading(key.removesuffix(ending))}, {unit}"
    return " ".join(_WORDS.get(word, word) for word in key.split("_"))
