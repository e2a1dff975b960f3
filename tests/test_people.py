"""People's labels: how they are wrong and how far that can be foreseen, against counts by hand."""

import numpy as np
import pytest

from elrkit.config import ConfigError
from elrkit.report import figures, parameters, people


def test_confusion_is_counted():
    matrix = np.array([[90, 8, 2], [0, 100, 0], [30, 10, 60]])
    (facts,) = people.confusion_facts({"worst": matrix}, ["cat", "dog", "owl"]).to_dict("records")
    assert facts["wrong"] == "16.7 %"  # 50 of 300
    assert facts["one mistake"] == "76 %"  # 8 + 0 + 30 of 50
    assert facts["commonest mistakes"] == "owl as cat 30 %; owl as dog 10 %; cat as dog 8 %"
    assert figures.human_confusion({"worst": matrix}, ["cat", "dog", "owl"]).axes[0].get_title() == "worst: 17 % wrong"


@pytest.mark.parametrize(("wrong", "share"), [(0.1, 0.34), (0.2, 0.67), (0.05, 0.0)])
def test_foresight_needed_for_an_agreement(wrong, share):
    assert people.needed_foresight(0.934, wrong) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ("# Parameters\nseeds = [1]\nbeta = 0.5\n", None),
        ("# Parameters\nsedes = [1]\n", "sedes: no parameter of this notebook; allowed are seeds, beta, lam"),
        ("print('no papermill here')\nother = 1", None),
    ],
)
def test_a_parameter_that_a_chapter_lacks_is_named(injected, message):
    cells = ["import x", "seeds = [0]  # of the runs\nbeta, lam = None, None", injected, "parameters.check(In)"]
    if message is None:
        parameters.check(cells)
    else:
        with pytest.raises(ConfigError, match=message):
            parameters.check(cells)
