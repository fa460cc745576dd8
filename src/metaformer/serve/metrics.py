"""What Prometheus reads, in a registry of the service's own: requests, seconds, what waits, batches, restarts."""

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from metaformer.serve.verbs import Asks

CONTENT_TYPE = CONTENT_TYPE_LATEST
PATHS = ("/predict", "/embed", "/explain", "/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/")
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
GAUGES = (
    ("waiting", "waiting_images", "Images that wait for the model."),
    ("working", "working_images", "Images that the model has."),
    ("up", "up", "Whether the model's process can answer."),
)
COUNTERS = (
    ("images", "images", "Images that the model answered."),
    ("batches", "batches", "Batches that the model ran."),
    ("seconds", "busy_seconds", "Seconds in which the model ran."),
    ("restarts", "restarts", "Processes of the model that ended and were replaced."),
)
REASONS = ("full", "late", "lost", "cancelled")


class Metrics:
    """Counts requests, and reads the pool's own counters when it is asked."""

    def __init__(self, pool: Asks) -> None:
        self._registry = CollectorRegistry()
        names = ["path", "status"]
        self._requests = Counter("metaformer_requests", "Answers, by path and status.", names, registry=self._registry)
        self._seconds = Histogram(
            "metaformer_request_seconds",
            "From a request's head to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_OfPool(pool))

    def count(self, path: str, status: int, seconds: float) -> None:
        """One more request is done."""
        known = path if path in PATHS else "/page" if path.startswith("/page/") else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _OfPool(Collector):
    """The pool's counts, as families with the label model; see `lane.Counts`."""

    def __init__(self, pool: Asks) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """As the pool stands now."""
        stats = {name: self._pool.stats(name) for name in self._pool.models}
        for key, name, told in GAUGES:
            gauge = GaugeMetricFamily(f"metaformer_{name}", told, labels=["model"])
            for model, counts in stats.items():
                gauge.add_metric([model], float(counts[key]))
            yield gauge
        for key, name, told in COUNTERS:
            counter = CounterMetricFamily(f"metaformer_{name}", told, labels=["model"])
            for model, counts in stats.items():
                counter.add_metric([model], counts[key])
            yield counter
        unanswered = CounterMetricFamily("metaformer_unanswered", "Requests without an answer.", labels=["model", "reason"])
        sizes = HistogramMetricFamily("metaformer_batch_size", "Images in a batch.", labels=["model"])
        for model, counts in stats.items():
            for reason in REASONS:
                unanswered.add_metric([model, reason], counts[reason])
            sizes.add_metric([model], *_histogram(counts["sizes"]))
        yield unanswered
        yield sizes


def _histogram(sizes: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Batches of up to 1, 2, 4 … images, and the sum of images."""
    tops = [2**power for power in range(1 + max((size - 1).bit_length() for size in (1, *sizes)))]
    buckets = [(f"{top}.0", float(sum(count for size, count in sizes.items() if size <= top))) for top in tops]
    return [*buckets, ("+Inf", buckets[-1][1])], float(sum(size * count for size, count in sizes.items()))
