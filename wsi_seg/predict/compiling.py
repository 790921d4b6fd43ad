"""Owns whether a network is compiled: where that saves more time than it costs."""

# Seconds that compiling a network costs the first time, measured on an H100 (10 to 25); it is
# faster from the disk.
_SECONDS = 30

# How many times as fast a compiled network is as a plain one, measured on an H100 and an H200.
_SPEEDUP = 1.9


def should_compile(tiles: int, tiles_per_second: float) -> bool:
    """Whether a network should be compiled on CUDA: whether it saves more time than it costs.

    Parameters
    ----------
    tiles
        Tiles that will be predicted.
    tiles_per_second
        Rate of the network as it is.
    """
    seconds = tiles / tiles_per_second
    return seconds - seconds / _SPEEDUP > _SECONDS
