"""Owns models on the Hugging Face Hub: their addresses, and downloading a revision."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from wsi_seg.errors import CheckpointError, ConfigError

# A single slash, too: pathlib collapses two.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>.+))?"
)

_MODELS = (".safetensors", ".onnx", ".pt2")

# Exceptions of failed requests.
HUB_FAILURES = (HTTPError, OSError, ValueError, RuntimeError)

# Suffixes of files that belong to a model: its card, and external weights of an ONNX file.
_COMPANIONS = (".yaml", ".yml", ".json", ".onnx.data")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """Address of a model, ``hf://OWNER/NAME[@REVISION][/FILE]``.

    Parameters
    ----------
    repository
        ``OWNER/NAME``.
    revision
        Branch, tag or commit; None is the latest.
    file
        Path in the repository; None is its only model.

    Examples
    --------
    >>> HubAddress.of("hf://lab/nuclei@v1")
    HubAddress(repository='lab/nuclei', revision='v1', file=None)
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, text: str) -> "HubAddress":
        """Parse an address.

        Raises
        ------
        ConfigError
            If it is malformed.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ConfigError(f"got address {text!r}; expected hf://OWNER/NAME[@REVISION][/FILE]")
        return cls(**found.groupdict())


def is_hub_address(path: Path | str) -> bool:
    """Return whether a path is a Hub address."""
    return str(path).startswith("hf:/")


def fetch_model(text: str) -> Path:
    """Download a model and its card to the Hub's cache.

    Parameters
    ----------
    text
        See `HubAddress`. ``HF_ENDPOINT`` sets the server.

    Returns
    -------
    Path
        Local path of the model.

    Raises
    ------
    CheckpointError
        If the download fails, or the repository has no model or several.
    """
    address = HubAddress.of(text)
    try:
        names = HfApi().list_repo_files(address.repository, revision=address.revision)
        name = address.file or _only_model(names, text)
        found = Path(_download(address, name))
        for end in _COMPANIONS:
            other = str(PurePosixPath(name).with_suffix(end))
            if other in names and not name.endswith(".safetensors"):
                _download(address, other)
    except HUB_FAILURES as error:
        if isinstance(error, CheckpointError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"cannot download {text} ({reason}); expected a model that you can access (set "
            "HF_TOKEN for a private or gated one), or a local file"
        ) from error
    return found


def _download(address: HubAddress, name: str) -> str:
    return str(hf_hub_download(address.repository, name, revision=address.revision))


def _only_model(names: list[str], text: str) -> str:
    found = [name for name in names if name.endswith(_MODELS)]
    own = [name for name in found if name.endswith(".safetensors")]
    found = own if len(own) == 1 else found
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise CheckpointError(
            f"{text} has {len(found)} models ({listed}); expected one; name it, as in {text}/FILE"
        )
    return found[0]
