import pytest

from tests.makers.painted import paint_prediction


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """A painted slide, its truth, and a prediction that is wrong in one place."""
    return paint_prediction(tmp_path_factory.mktemp("seen"))
