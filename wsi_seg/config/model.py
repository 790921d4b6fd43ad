"""Owns the section of a recipe that says which network is trained."""

from pathlib import Path

from wsi_seg.config.section import Section


class ModelConfig(Section):
    """Network; see `wsi_seg.models.build_network`.

    ``weights`` is null (random), the name of published weights such as ``imagenet``, or the path
    of a ``.safetensors`` file.
    """

    architecture: str = "Unet"
    encoder: str = "efficientnet-b0"
    weights: str | None = None

    @property
    def start(self) -> str | Path | None:
        """Weights to start from: a path where a file is named."""
        if self.weights is not None and self.weights.endswith(".safetensors"):
            return Path(self.weights)
        return self.weights
