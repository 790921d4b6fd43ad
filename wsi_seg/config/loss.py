"""Owns the section of a recipe that says what is minimised: loss terms, their weights, options."""

from typing import Annotated, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from wsi_seg.config.section import Section, Share, Unit


class Term(Section):
    """Term of the loss. A bare number is its weight."""

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
        """Take the bare number too."""
        return {"anyOf": [{"type": "number", "minimum": 0}, handler(core_schema)]}


class BceTerm(Term):
    """Binary cross-entropy."""

    pos_weight: float = Field(default=1.0, gt=0)
    """How many times as much a class's pixels count as the others."""


class TopKTerm(Term):
    """Cross-entropy of the hardest pixels alone."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the pixels that count."""


class HardTerm(Term):
    """Cross-entropy weighted by the error ``|p - t|`` to the power ``gamma``."""

    gamma: float = Field(default=1.0, ge=0)
    """Power of the error."""


class HardHalvesTerm(HardTerm):
    """Balanced cross-entropy whose halves weigh each pixel by its error."""

    negatives: Annotated[int | None, Field(ge=1), Unit("pixels")] = None
    """Keep only so many of a patch's pixels outside each class, the hardest; null keeps all."""


class FocalTerm(Term):
    """Focal loss."""

    gamma: float = Field(default=2.0, ge=0)
    """Power of the error."""
    alpha: Share | None = None
    """Weight of a class's pixels, 1 - alpha of the others; null weighs all the same."""


class TverskyTerm(Term):
    """Tversky loss; with ``fp`` and ``fn`` of 0.5 it is Dice."""

    fp: float = Field(default=0.3, ge=0)
    """Weight of false positives."""
    fn: float = Field(default=0.7, ge=0)
    """Weight of false negatives."""


class HausdorffTerm(Term):
    """Squared error weighted by the distance from both outlines to the power ``alpha``."""

    alpha: float = Field(default=2.0, gt=0)
    """Power of the distance."""


class ContourTerm(Term):
    """Active contour: the area that is wrong, and the length of the outline."""

    length: float = Field(default=1.0, ge=0)
    """Weight of the outline's length."""


class SkeletonTerm(Term):
    """Centre lines, thinned in steps."""

    steps: int = Field(default=10, ge=1, le=200)
    """Steps of thinning: half the width in pixels of the widest structure."""


# Terms of classes that are decided on their own, and of classes that exclude each other; the others
# are for both.
INDEPENDENT = frozenset({"bce", "bce_balanced", "bce_topk", "bce_hard", "bce_hard_halves"})
EXCLUSIVE = frozenset({"ce"})


class LossConfig(Section):
    """Terms of the loss; a term that is not named is left out.

    Their definitions are in `wsi_seg.learn.losses`. A recipe without this section has
    ``{bce: 1, dice: 1}``, and ``{ce: 1, dice: 1}`` where classes are exclusive. Probabilities are
    sigmoids, or the softmax of exclusive classes, whose background is no class.
    """

    ce: Term = Term()
    """Cross-entropy of exclusive classes and background, each pixel weighing as its class does."""
    bce: BceTerm = BceTerm()
    """Binary cross-entropy."""
    bce_balanced: Term = Term()
    """Half the mean over a class's pixels and half the mean over the others."""
    bce_topk: TopKTerm = TopKTerm()
    """Cross-entropy of the hardest pixels alone."""
    bce_hard: HardTerm = HardTerm()
    """Cross-entropy weighted by the error."""
    bce_hard_halves: HardHalvesTerm = HardHalvesTerm()
    """As ``bce_balanced``, in each half weighted by the error; for rounds of hard mining."""
    bce_empty: Term = Term()
    """Cross-entropy of the class head: whether a class is in the patch."""
    focal: FocalTerm = FocalTerm()
    """Focal loss (Lin et al., 2017)."""
    mse: Term = Term()
    """Mean squared error of the probabilities (Brier score)."""
    dice: Term = Term()
    """1 - Dice of the probabilities."""
    dice_positive: Term = Term()
    """1 - Dice of each patch and class that has pixels, mean over those alone."""
    log_dice: Term = Term()
    """-log of Dice: steep where there is hardly any overlap."""
    jaccard: Term = Term()
    """1 - intersection over union of the probabilities."""
    tversky: TverskyTerm = TverskyTerm()
    """1 - Tversky index (Salehi et al., 2017)."""
    mcc: Term = Term()
    """1 - Matthews correlation (Abhishek and Hamarneh, 2021)."""
    lovasz: Term = Term()
    """Lovász hinge, a convex surrogate of 1 - IoU; Lovász-softmax of exclusive classes (Berman et
    al., 2018)."""
    cl_dice: SkeletonTerm = SkeletonTerm()
    """1 - soft clDice: whether centre lines of thin structures are covered (Shit et al., 2021)."""
    boundary: Term = Term()
    """Mean of probability times signed distance to the true outline (Kervadec et al., 2019)."""
    hausdorff: HausdorffTerm = HausdorffTerm()
    """Squared error weighted by distances to both outlines (Karimi and Salcudean, 2020)."""
    active_contour: ContourTerm = ContourTerm()
    """Wrong area plus length of the outline (Chen et al., 2019)."""

    @property
    def terms(self) -> dict[str, Term]:
        """Terms of a weight above 0, by name."""
        return {name: term for name, term in self if term.weight > 0}

    @model_validator(mode="after")
    def _any_term(self) -> Self:
        if not self.terms:
            raise ValueError("all loss weights are 0; expected at least one above 0")
        return self
