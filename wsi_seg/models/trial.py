"""Owns trial passes: what is found out about a network on an image of zeros or noise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsi_seg.errors import ConfigError

# What networks raise for an image whose size they do not take.
_REFUSALS = (AssertionError, ValueError, RuntimeError)


@contextmanager
def trial_pass() -> Iterator[None]:
    """Compute on one thread, without gradients.

    On a tiny image threads gain nothing and can cost seconds: where other programs use the cores,
    each of hundreds of layers waits until its threads get their turn.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


def on_first_side[R](trial: Callable[[int], R], *sides: int, expected: str) -> R:
    """Try a network on images of several sides; most encoders take any, some a single one.

    Parameters
    ----------
    trial
        Runs the network on an image of a side, in pixels.
    sides
        Tried in this order, until the network takes one.
    expected
        What to do where it takes none; ends the error.

    Raises
    ------
    ConfigError
        If the network takes none; has the last side and the network's own reason.
    """
    for side in sides[:-1]:
        try:
            return trial(side)
        except torch.OutOfMemoryError:
            raise
        except _REFUSALS:  # the next side may do
            continue
    try:
        return trial(sides[-1])
    except torch.OutOfMemoryError:  # not a refusal, though a RuntimeError
        raise
    except _REFUSALS as error:
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
    """Refuse, before anything is learned, patches and batches that a network cannot learn from.

    One patch goes through the network, which is in training mode again afterwards.

    Parameters
    ----------
    network
        As it was built.
    in_channels, patch_px
        Shape of a patch.
    batch_size
        Patches per step and device.
    keep_norm
        Whether BatchNorm of the encoder keeps its statistics.
    expected
        What to do where the network does not take the patch; ends the error.

    Raises
    ------
    ConfigError
        If it does not take such patches, gives other than one logit per pixel, or if BatchNorm
        would have to normalise a single value.
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
            f"the network gives {tuple(found.shape[2:])} logits for patches of {patch_px} px; "
            f"{expected}"
        )


def _too_small(layers: list[str], batch_size: int, patch_px: int, before: str = "") -> str:
    """Sentence about layers of BatchNorm that would see one value; nothing without any."""
    if not layers:
        return ""
    return (
        f"{before}got train.batch_size {batch_size} and patch_px {patch_px}, with which BatchNorm "
        f"of layer {layers[0]} would see one value per channel; set train.batch_size to 2 or more "
        "(train.accumulate makes larger steps of small batches), or patch_px to more"
    )
