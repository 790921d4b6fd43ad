"""Owns colour, noise and blur augmentation of batches, with random parameters for each patch.

Images are ``(B, C, H, W)`` float32, 0 to 1, before and after. Parameters are drawn on the CPU.
"""

import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch.nn import functional

from wsi_seg.config.augment import BlurConfig, HsvConfig, StainConfig, StepConfig

# Range of the blur's sigma in pixels, as in albumentations.
_SIGMAS = (0.5, 3.0)


def uniform(count: int, low: float, high: float) -> torch.Tensor:
    """Draw ``count`` numbers uniformly from [low, high), ``(count,)`` float32."""
    return low + (high - low) * torch.rand(count)


def change_colours(images: torch.Tensor, step: StepConfig) -> torch.Tensor:
    """Apply a colour, noise or blur step to ``(B, C, H, W)`` float32 images, 0 to 1."""
    count = len(images)
    if (light := step.brightness_contrast) is not None:
        contrast = 1 + uniform(count, -light.contrast, light.contrast)
        brightness = uniform(count, -light.brightness, light.brightness)
        images = images * _each(contrast, images) + _each(brightness, images)
    elif step.hsv is not None:
        images = _change_hsv(images, step.hsv)
    elif step.gamma is not None:
        images = images ** _each(uniform(count, *step.gamma.limit) / 100, images)
    elif step.stain is not None:
        images = _change_stains(images, step.stain)
    elif step.noise is not None:
        images = images + torch.randn_like(images) * _each(uniform(count, *step.noise.std), images)
    elif step.blur is not None:
        images = _blurred(images, step.blur)
    elif step.slice_flip is not None:
        images = images.flip(1)
    else:
        order = torch.rand(images.shape[:2]).argsort(1).to(images.device, non_blocking=True)
        images = images.take_along_dim(order[..., None, None], 1)
    return images.clamp(0, 1)


def _each(amounts: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Reshape one value per patch to broadcast over the images, on their device."""
    return amounts.reshape(-1, 1, 1, 1).to(images.device, non_blocking=True)


def _change_hsv(images: torch.Tensor, config: HsvConfig) -> torch.Tensor:
    """Shift hue, saturation and value, with limits in OpenCV's 8-bit units (hue 0 to 180)."""
    count = len(images)
    hue, saturation, value = (
        _each(uniform(count, -limit, limit) / full, images)
        for limit, full in ((config.hue, 180), (config.saturation, 255), (config.value, 255))
    )
    red, green, blue = images.unbind(1)
    top = images.amax(1)
    spread = top - images.amin(1)
    part = spread.clamp(min=1e-6)
    turn = torch.where(
        top == red,
        (green - blue) / part % 6,
        torch.where(top == green, (blue - red) / part + 2, (red - green) / part + 4),
    )
    turn = (turn[:, None] / 6 + hue) % 1 * 6
    grey = (spread / top.clamp(min=1e-6))[:, None]
    grey, top = (grey + saturation).clamp(0, 1), (top[:, None] + value).clamp(0, 1)
    # HSV to RGB (Smith, 1978).
    far = (torch.tensor([5.0, 3.0, 1.0], device=images.device).reshape(1, 3, 1, 1) + turn) % 6
    return top - top * grey * torch.minimum(far, 4 - far).clamp(0, 1)


def _change_stains(images: torch.Tensor, config: StainConfig) -> torch.Tensor:
    """Jitter haematoxylin, eosin and DAB; see `data.augment.change_stains`."""
    count = len(images)
    factors = 1 + uniform(3 * count, -config.scale, config.scale).reshape(count, 3)
    offsets = uniform(3 * count, -config.offset, config.offset).reshape(count, 3)
    to, back = (torch.as_tensor(m, dtype=torch.float32) for m in (hed_from_rgb, rgb_from_hed))
    matrix = ((to * factors[:, None]) @ back).to(images.device, non_blocking=True)
    shift = (offsets @ back).reshape(count, 3, 1, 1).to(images.device, non_blocking=True)
    density = -((images * 255 + 1) / 256).log()
    density = torch.einsum("bchw,bcd->bdhw", density, matrix) + shift
    changed_images: torch.Tensor = (torch.exp(-density) * 256 - 1) / 255
    return changed_images


def _blurred(images: torch.Tensor, config: BlurConfig) -> torch.Tensor:
    """Blur each patch with its own Gaussian kernel, of its own width and sigma."""
    count, channels = images.shape[:2]
    low, high = config.px
    half = torch.randint(low // 2, high // 2 + 1, (count, 1))
    sigma = uniform(count, *_SIGMAS).reshape(count, 1)
    reach = high // 2
    ruler = torch.arange(-reach, reach + 1).abs()
    kernel = torch.exp(-(ruler**2) / (2 * sigma**2)) * (ruler <= half)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    kernel = kernel[:, None].to(images.device, non_blocking=True)
    flat = functional.pad(images, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    flat = functional.conv2d(flat, kernel[..., None], groups=len(kernel))
    flat = functional.conv2d(flat, kernel[..., None, :], groups=len(kernel))
    return flat.reshape(images.shape)
