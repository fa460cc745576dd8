"""Bootstrap intervals: each resample's figure is the figure of that resample, computed the slow way."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metaformer.tasks import bootstrap, metrics, selective
from metaformer.tasks.bootstrap import Bootstrap, around, interval
from metaformer.tasks.classification import Evaluation

pytestmark = pytest.mark.usefixtures("thread")

IMAGES, CLASSES = 60, 7
DRAW = torch.Generator().manual_seed(1)
LOGITS = (2 * torch.randn(IMAGES, CLASSES, generator=DRAW)).round(decimals=1)  # with ties
LABELS = torch.randint(CLASSES - 1, (IMAGES,), generator=DRAW)  # the last class has no image
LOGITS[torch.arange(IMAGES), LABELS] += 1.5


def drawn_images(boot: Bootstrap) -> list[Tensor]:
    """The numbers of the images of each resample."""
    counts = torch.cat(list(boot.counts())).long()
    return [torch.arange(boot.images).repeat_interleave(row) for row in counts]


def test_every_figure_is_that_of_its_resample() -> None:
    boot = Bootstrap(IMAGES, times=12, seed=3)
    drawn = boot.figures(LOGITS, LABELS)
    for place, index in enumerate(drawn_images(boot)):
        again = Evaluation(LOGITS[index], LABELS[index], tuple(map(str, range(CLASSES))))
        told = again.summary()
        assert len(index) == IMAGES
        for name in ("top1", "top5", "loss", "brier", "ece", "macro_f1", "macro_auc"):
            assert drawn[name][place].item() == pytest.approx(told[name]), name
        for name in ("precision", "recall", "f1", "auc"):
            rows = [row[name] for row in told["per_class"].values()]
            assert [None if value != value else value for value in drawn[name][place].tolist()] == pytest.approx(rows), name
        if len(LOGITS.softmax(1).amax(1).unique()) == IMAGES:
            curve = selective.risk_coverage(again.confidence, again.right)
            assert drawn["aurc"][place].item() == pytest.approx(selective.figures(curve)[0].item(), abs=0.02)


def test_risk_coverage_is_drawn_image_by_image() -> None:
    """All confidences are different: a resample's curve is that of its images in order, copies beside each other."""
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(5))
    labels = torch.arange(40) % 3
    boot, right = Bootstrap(40, times=6), logits.argmax(1) == labels
    sure = logits.double().softmax(1).amax(1)
    drawn = boot.figures(logits, labels)
    for place, index in enumerate(drawn_images(boot)):
        order = index[sure[index].argsort(descending=True)]
        wrong = [float(not right[i]) for i in order]
        risks = [sum(wrong[:k]) / k for k in range(1, 41)]
        assert drawn["aurc"][place].item() == pytest.approx(sum(risks) / 40)
        assert drawn["accuracy_at_80"][place].item() == pytest.approx(1 - risks[31])


def test_resamples_are_uniform_and_follow_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.cat(list(Bootstrap(50, times=400, seed=1).counts()))
    assert (whole.sum(1) == 50).all()
    assert whole.mean(0).sub(1).abs().max() < 0.25
    assert whole.var().item() == pytest.approx(1, abs=0.05)  # a binomial's of 50 and 1/50
    assert not torch.equal(whole, torch.cat(list(Bootstrap(50, times=400, seed=2).counts())))
    assert torch.equal(whole, torch.cat(list(Bootstrap(50, times=400, seed=1).counts())))
    monkeypatch.setattr(bootstrap, "AT_ONCE", 500)
    parts = list(Bootstrap(50, times=25, seed=1).counts())
    assert [len(part) for part in parts] == [10, 10, 5]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Means of 80 coins with p = 0.3, 200 times: 95 % within four standard deviations of that."""
    draw = torch.Generator().manual_seed(0)
    held = 0
    for trial in range(200):
        values = (torch.rand(80, 1, generator=draw) < 0.3).double()
        found = interval(Bootstrap(80, times=300, seed=trial).means(values)[:, 0])
        assert found is not None
        held += found[0] <= 0.3 <= found[1]
    assert 0.88 <= held / 200 <= 0.99


def test_an_interval_is_of_what_is_defined() -> None:
    values = torch.arange(1001).double()
    assert interval(values) == pytest.approx((25, 975))
    assert interval(values, 0.5) == pytest.approx((250, 750))
    half = values.clone()
    half[:400] = torch.nan
    assert interval(half) == pytest.approx((415, 985))
    half[:600] = torch.nan
    assert interval(half) is None


def test_differences_are_paired() -> None:
    """The same seed draws the same images: a model minus itself is nothing, and a small steady gain is sure."""
    boot = Bootstrap(IMAGES, times=200, seed=0)
    one = boot.figures(LOGITS, LABELS)
    assert (boot.figures(LOGITS.clone(), LABELS)["loss"] == one["loss"]).all()
    warmer = boot.figures(LOGITS * 0.9, LABELS)["loss"] - one["loss"]
    alone, paired = interval(one["loss"]), interval(warmer)
    assert alone is not None
    assert paired is not None
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 3


def test_eces_of_several_columns() -> None:
    boot = replace(Bootstrap(IMAGES), times=5)
    sure, right = torch.rand(IMAGES, 3, generator=DRAW), torch.rand(IMAGES, 3, generator=DRAW) < 0.5
    found = boot.eces(sure, right)
    for place, index in enumerate(drawn_images(boot)):
        assert found[place].tolist() == pytest.approx([metrics.ece(sure[index, k], right[index, k]) for k in range(3)])


def test_an_interval_of_a_calibration_error_holds_it() -> None:
    """The mean of twenty: resamples make it so much greater that their percentiles do not."""
    draw = torch.Generator().manual_seed(0)
    sure = 0.5 + 0.5 * torch.rand(400, 20, generator=draw, dtype=torch.float64)
    right = torch.rand(400, 20, generator=draw) < sure
    value = sum(metrics.ece(one.contiguous(), hit) for one, hit in zip(sure.T, right.T, strict=True)) / 20
    drawn = Bootstrap(400).eces(sure, right).mean(1)
    band, (low, high) = interval(drawn), around(value, drawn)
    assert band is not None
    assert band[0] > value
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.959964 * drawn.std().item())
    assert around(0.01, 1000 * drawn) == (0.0, 1.0)
