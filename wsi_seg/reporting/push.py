"""Owns pushing a model and its page to the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.models import ModelCard, read_card
from wsi_seg.models.card_file import card_next_to
from wsi_seg.models.foreign import card_for, is_network_file, open_network
from wsi_seg.models.hub import HUB_FAILURES, HubAddress
from wsi_seg.reporting.model_page import model_page


@dataclass(frozen=True, slots=True)
class PushReport:
    """Report of a push.

    Parameters
    ----------
    address
        Address for ``--checkpoint``, with the new revision.
    files
        Paths in the repository.
    slides
        Number of training slides that the card names.
    """

    address: str
    files: tuple[str, ...]
    slides: int

    def lines(self) -> list[str]:
        """Report as lines of text."""
        named = f"the model card names {counted(self.slides, 'slide')} that it was trained on"
        return [f"{self.address}: {', '.join(self.files)}"] + ([named] if self.slides else [])

    def to_json(self) -> dict[str, object]:
        """Report as JSON values."""
        return {"address": self.address, "files": list(self.files), "slides": self.slides}


def push_model(
    file: Path | str, address: str, *, licence: str = "other", public: bool = False
) -> PushReport:
    """Push a model and its page.

    Parameters
    ----------
    file
        Checkpoint of wsi_seg, or ``.onnx`` or ``.pt2`` with a card.
    address
        ``hf://OWNER/NAME[@BRANCH]``; the repository is created if necessary.
    licence
        SPDX identifier of the model's licence.
    public
        Whether a new repository is public.

    Returns
    -------
    PushReport
        Address and files.

    Raises
    ------
    CheckpointError
        If the file is not a model.
    ConfigError
        If the address is not that of a repository.
    OutputError
        If the hub rejects the request.

    Examples
    --------
    >>> push_model("run/best.safetensors", "hf://lab/nuclei")  # doctest: +SKIP
    """
    file, where = Path(file), HubAddress.of(address)
    if where.file is not None:
        raise ConfigError(f"got address {address}; expected hf://OWNER/NAME, without a file")
    foreign = is_network_file(file)
    card = card_for(open_network(file)) if foreign else read_card(file)
    page = model_page(file, card, licence=licence)
    page["README.md"] = page["README.md"].replace(b"OWNER/NAME", where.repository.encode())
    contents: dict[str, Path | bytes] = {file.name: file, **page}
    if (other := card_next_to(file)) is not None:
        contents[other.name] = other
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    api = HfApi()
    try:
        api.create_repo(where.repository, private=not public, exist_ok=True)
        commit = api.create_commit(
            where.repository, operations, commit_message=f"Add {file.name}", revision=where.revision
        )
    except HUB_FAILURES as error:
        reason = " ".join(str(error).split())[:300]
        raise OutputError(
            f"cannot push to {address} ({reason}); expected a repository with write access; set "
            "HF_TOKEN, or run `hf auth login`"
        ) from error
    return PushReport(f"hf://{where.repository}@{commit.oid}", tuple(contents), len(_slides(card)))


def _slides(card: ModelCard) -> list[object]:
    found = card.training.get("train_slides")
    return found if isinstance(found, list) else []
