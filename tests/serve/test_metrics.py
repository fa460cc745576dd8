"""Metrics: what Prometheus reads is what happened."""

from prometheus_client.parser import text_string_to_metric_families
from tests.serve.client import Client, png
from tests.serve.fake import MODELS, FakePool

from metaformer.serve.app import Service
from metaformer.serve.metrics import Metrics


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by name and labels."""
    families = text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_requests_are_counted() -> None:
    client = Client(Service(FakePool(MODELS[:1])))
    for _ in range(3):
        client.post("/predict", content=png())
    client.post("/predict?top=0", content=png())
    client.get("/nowhere/private")
    answered = client.get("/metrics")
    assert answered.headers["content-type"].startswith("text/plain; version=")
    found = samples(answered.text)
    assert found["metaformer_requests_total", (("path", "/predict"), ("status", "200"))] == 3
    assert found["metaformer_requests_total", (("path", "/predict"), ("status", "422"))] == 1
    assert found["metaformer_requests_total", (("path", "other"), ("status", "404"))] == 1
    assert found["metaformer_request_seconds_count", (("path", "/predict"),)] == 4
    assert found["metaformer_images_total", (("model", "digits"),)] == 3
    assert "private" not in answered.text


def test_the_pool_s_counts() -> None:
    pool = FakePool(MODELS[:1])
    counts = {
        "batches": 6, "images": 20, "seconds": 1.5, "restarts": 2, "sizes": {1: 3, 3: 1, 4: 1, 10: 1},
        "full": 4, "late": 3, "lost": 2, "cancelled": 1, "waiting": 7, "working": 5, "up": False,
    }  # fmt: skip
    pool.models, pool.stats = pool.all, lambda model: counts  # type: ignore[method-assign, assignment]
    found = samples(Metrics(pool).text().decode())
    model = ("model", "digits")
    for name, value in (("waiting_images", 7), ("working_images", 5), ("up", 0), ("batches_total", 6), ("restarts_total", 2)):
        assert found[f"metaformer_{name}", (model,)] == value
    assert found["metaformer_busy_seconds_total", (model,)] == 1.5
    for reason, value in (("full", 4), ("late", 3), ("lost", 2), ("cancelled", 1)):
        assert found["metaformer_unanswered_total", (model, ("reason", reason))] == value
    sizes = {labels[0][1]: value for (name, labels), value in found.items() if name == "metaformer_batch_size_bucket"}
    assert sizes == {"1.0": 3, "2.0": 3, "4.0": 5, "8.0": 5, "16.0": 6, "+Inf": 6}
    assert found["metaformer_batch_size_sum", (model,)] == 20


def test_each_service_has_counts_of_its_own() -> None:
    one, other = Metrics(FakePool()), Metrics(FakePool())
    one.count("/predict", 200, 0.1)
    assert 'path="/predict"' in one.text().decode()
    assert 'path="/predict"' not in other.text().decode()
