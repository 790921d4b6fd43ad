"""Owns the recipe section for the loss: its terms, their weights and options."""

from typing import Annotated, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from wsi_seg.config.section import Section, Share, Unit


class Term(Section):
    """Term of the loss. A plain number is its weight."""

    weight: float = Field(default=0.0, ge=0)
    """Weight of the term in the sum; 0 leaves it out."""

    @model_validator(mode="before")
    @classmethod
    def _number_is_weight(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"weight": value}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Allow a plain number."""
        return {"anyOf": [{"type": "number", "minimum": 0}, handler(core_schema)]}


class BceTerm(Term):
    """Binary cross-entropy."""

    pos_weight: float = Field(default=1.0, gt=0)
    """Weight of a class's pixels relative to all other pixels."""


class TopKTerm(Term):
    """Cross-entropy of the hardest pixels only."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Fraction of pixels that count."""


class HardTerm(Term):
    """Cross-entropy weighted by the error ``|p - t|`` to the power ``gamma``."""

    gamma: float = Field(default=1.0, ge=0)
    """Power of the error."""


class HardHalvesTerm(HardTerm):
    """Balanced cross-entropy, each pixel weighted by its error within its half."""

    negatives: Annotated[int | None, Field(ge=1), Unit("pixels")] = None
    """Keep only this many of the hardest negative pixels per patch and class; null keeps all."""


class FocalTerm(Term):
    """Focal loss."""

    gamma: float = Field(default=2.0, ge=0)
    """Power of the error."""
    alpha: Share | None = None
    """Weight of a class's pixels; all others have weight 1 - alpha. Null weighs all equally."""


class TverskyTerm(Term):
    """Tversky loss; equal to Dice if ``fp`` and ``fn`` are 0.5."""

    fp: float = Field(default=0.3, ge=0)
    """Weight of false positives."""
    fn: float = Field(default=0.7, ge=0)
    """Weight of false negatives."""


class HausdorffTerm(Term):
    """Squared error weighted by the distance from both outlines to the power ``alpha``."""

    alpha: float = Field(default=2.0, gt=0)
    """Power of the distance."""


class ContourTerm(Term):
    """Active contour: the misclassified area, and the length of the contour."""

    length: float = Field(default=1.0, ge=0)
    """Weight of the contour's length."""


class SkeletonTerm(Term):
    """Soft skeleton (centre lines) by iterative thinning."""

    steps: int = Field(default=10, ge=1, le=200)
    """Thinning iterations: half the width in pixels of the widest structure."""


# Terms for overlapping classes only, and for exclusive classes only.
INDEPENDENT = frozenset({"bce", "bce_balanced", "bce_topk", "bce_hard", "bce_hard_halves"})
EXCLUSIVE = frozenset({"ce"})


class LossConfig(Section):
    """Terms of the loss; a term that is not listed has weight 0.

    Their definitions are in `wsi_seg.learn.losses`. The default is ``{bce: 1, dice: 1}``, or
    ``{ce: 1, dice: 1}`` for exclusive classes. Probabilities are sigmoids, or for exclusive
    classes the softmax over classes and background, without the background channel.
    """

    ce: Term = Term()
    """Cross-entropy over exclusive classes and background, each pixel weighted by its class."""
    bce: BceTerm = BceTerm()
    """Binary cross-entropy."""
    bce_balanced: Term = Term()
    """Binary cross-entropy: half the mean over a class's pixels plus half the mean over the
    others."""
    bce_topk: TopKTerm = TopKTerm()
    """Binary cross-entropy of the hardest pixels only."""
    bce_hard: HardTerm = HardTerm()
    """Binary cross-entropy weighted by the error."""
    bce_hard_halves: HardHalvesTerm = HardHalvesTerm()
    """Like ``bce_balanced``, with each half weighted by the error; for rounds of hard mining."""
    bce_empty: Term = Term()
    """Binary cross-entropy of the classification head: whether a class is in the patch."""
    focal: FocalTerm = FocalTerm()
    """Focal loss (Lin et al., 2017)."""
    mse: Term = Term()
    """Mean squared error of the probabilities (Brier score)."""
    dice: Term = Term()
    """1 - Dice of the probabilities."""
    dice_positive: Term = Term()
    """1 - Dice per patch and class, averaged over the patches and classes that have pixels."""
    log_dice: Term = Term()
    """-log of Dice: steep where there is little overlap."""
    jaccard: Term = Term()
    """1 - intersection over union of the probabilities."""
    tversky: TverskyTerm = TverskyTerm()
    """1 - Tversky index (Salehi et al., 2017)."""
    mcc: Term = Term()
    """1 - Matthews correlation (Abhishek and Hamarneh, 2021)."""
    lovasz: Term = Term()
    """Lovász hinge, a convex surrogate of 1 - IoU; Lovász-softmax for exclusive classes (Berman et
    al., 2018)."""
    cl_dice: SkeletonTerm = SkeletonTerm()
    """1 - soft clDice: overlap of the centre lines of thin structures (Shit et al., 2021)."""
    boundary: Term = Term()
    """Mean of probability times signed distance to the true outline (Kervadec et al., 2019)."""
    hausdorff: HausdorffTerm = HausdorffTerm()
    """Squared error weighted by distances to both outlines (Karimi and Salcudean, 2020)."""
    active_contour: ContourTerm = ContourTerm()
    """Misclassified area plus length of the contour (Chen et al., 2019)."""

    @property
    def terms(self) -> dict[str, Term]:
        """Terms with a weight above 0, by name."""
        return {name: term for name, term in self if term.weight > 0}

    @model_validator(mode="after")
    def _any_term(self) -> Self:
        if not self.terms:
            raise ValueError("all loss weights are 0; expected at least one above 0")
        return self
