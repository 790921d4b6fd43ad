"""Owns trial passes, which check a network's input sizes and batch norms before real work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsi_seg.errors import ConfigError

# Exceptions that networks raise for images of unsupported size.
_SIZE_ERRORS = (AssertionError, ValueError, RuntimeError)


@contextmanager
def trial_pass() -> Iterator[None]:
    """Compute on one thread, without gradients.

    Threads do not speed up a tiny image, and can cost seconds on busy cores, where each of hundreds
    of layers waits for its threads to be scheduled.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def on_first_side[R](trial: Callable[[int], R], *sides: int, expected: str) -> R:
    """Run a trial on the first image size that a network accepts.

    Parameters
    ----------
    trial
        Runs the network on an image of this side, in pixels.
    sides
        Sides to try in this order; most encoders accept any, some only one.
    expected
        End of the error message: what to do if the network accepts none of them.

    Returns
    -------
    R
        Result of the first trial that succeeds.

    Raises
    ------
    ConfigError
        If the network accepts none; the message has the last side and the network's own error.
    """
    for side in sides[:-1]:
        try:
            return trial(side)
        except torch.OutOfMemoryError:
            raise
        except _SIZE_ERRORS:
            continue
    try:
        return trial(sides[-1])
    except torch.OutOfMemoryError:  # a RuntimeError, but not about the size
        raise
    except _SIZE_ERRORS as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"the network does not take images of {sides[-1]} px ({reason}); {expected}"
        ) from error


def require_trainable(
    network: nn.Module,
    in_channels: int,
    *,
    patch_px: int,
    batch_size: int,
    keep_norm: bool,
    expected: str,
) -> None:
    """Refuse patch and batch sizes that a network cannot be trained with.

    One patch is run through the network, which is then set to training mode.

    Parameters
    ----------
    network
        Network in training mode.
    in_channels, patch_px
        Channels, and side in pixels, of a patch.
    batch_size
        Patches per step and device.
    keep_norm
        Whether the encoder's BatchNorm keeps its running statistics.
    expected
        End of the error message: what to do if the network does not accept the patch.

    Raises
    ------
    ConfigError
        If the network does not accept such patches, does not return one logit per pixel, or if
        BatchNorm would see a single value per channel.
    """
    small: list[str] = []

    def note(name: str, values: torch.Tensor) -> None:
        if batch_size * values[:, 0].numel() < 2:
            small.append(name)

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and not (keep_norm and name.startswith("encoder."))
    ]
    network.eval()
    try:
        with torch.no_grad():
            found = on_first_side(
                lambda side: network(torch.zeros(1, in_channels, side, side)),
                patch_px,
                expected=expected,
            )
    except ConfigError as error:
        raise ConfigError(f"{error}{_too_small(small, batch_size, patch_px, '; ')}") from error
    finally:
        network.train()
        for hook in hooks:
            hook.remove()
    if small:
        raise ConfigError(_too_small(small, batch_size, patch_px))
    if found.shape[2:] != (patch_px, patch_px):
        raise ConfigError(
            f"the network returns {tuple(found.shape[2:])} logits for patches of {patch_px} px; "
            f"{expected}"
        )


def _too_small(layers: list[str], batch_size: int, patch_px: int, before: str = "") -> str:
    """Describe BatchNorm layers that would see a single value; empty if there are none."""
    if not layers:
        return ""
    return (
        f"{before}got train.batch_size {batch_size} and patch_px {patch_px}, with which BatchNorm "
        f"layer {layers[0]} would see one value per channel; set train.batch_size to 2 or more "
        "(train.accumulate combines small batches), or use a larger patch_px"
    )
