"""Owns the section of a recipe that says what is minimised: loss terms, their weights, options."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Share


class Term(Section):
    """Weight of a loss term in the sum; 0 leaves the term out. A bare number is the weight."""

    weight: float = Field(default=0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _number_is_weight(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"weight": value}
        return value


class BceTerm(Term):
    """Binary cross-entropy; pixels of a class count ``pos_weight`` times as much as the others."""

    pos_weight: float = Field(default=1.0, gt=0)


class TopKTerm(Term):
    """Cross-entropy of the hardest ``share`` of pixels alone."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.1


class HardTerm(Term):
    """Cross-entropy weighted by the error ``|p - t|`` to the power ``gamma``."""

    gamma: float = Field(default=1.0, ge=0)


class FocalTerm(Term):
    """Focal loss; ``alpha`` is the weight of a class's pixels, ``1 - alpha`` of the others'."""

    gamma: float = Field(default=2.0, ge=0)
    alpha: Share | None = None


class TverskyTerm(Term):
    """Tversky loss: ``fp`` and ``fn`` weigh false positives and misses (.5, .5 is Dice)."""

    fp: float = Field(default=0.3, ge=0)
    fn: float = Field(default=0.7, ge=0)


class HausdorffTerm(Term):
    """Squared error weighted by the distance from both outlines to the power ``alpha``."""

    alpha: float = Field(default=2.0, gt=0)


class ContourTerm(Term):
    """Active contour: the area that is wrong plus ``length`` times the outline's length."""

    length: float = Field(default=1.0, ge=0)


class LossConfig(Section):
    """Terms of the loss; their definitions are in `wsi_seg.learn.losses`.

    A term that is not named is left out. A recipe without this section has ``bce: 1, dice: 1``.
    """

    bce: BceTerm = BceTerm()
    bce_balanced: Term = Term()
    bce_topk: TopKTerm = TopKTerm()
    bce_hard: HardTerm = HardTerm()
    bce_empty: Term = Term()
    focal: FocalTerm = FocalTerm()
    mse: Term = Term()
    dice: Term = Term()
    dice_positive: Term = Term()
    log_dice: Term = Term()
    jaccard: Term = Term()
    tversky: TverskyTerm = TverskyTerm()
    mcc: Term = Term()
    lovasz: Term = Term()
    boundary: Term = Term()
    hausdorff: HausdorffTerm = HausdorffTerm()
    active_contour: ContourTerm = ContourTerm()

    @property
    def terms(self) -> dict[str, Term]:
        """Terms of a weight above 0, by name."""
        return {name: term for name, term in self if term.weight > 0}

    @model_validator(mode="after")
    def _any_term(self) -> Self:
        if not self.terms:
            raise ValueError("all loss weights are 0; expected at least one above 0")
        return self
