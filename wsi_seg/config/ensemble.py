"""Owns the section of a recipe that says what becomes of the networks of several folds."""

from wsi_seg.config.section import Section


class EnsembleConfig(Section):
    """What is made of the networks of all folds.

    Parameters
    ----------
    average
        Each fold's ``train.top_k`` networks become one whose weights are their mean, instead of
        a member each.
    out_of_fold
        Predict every slide by the fold that has not seen it, and keep the predictions.
    """

    average: bool = False
    out_of_fold: bool = True
