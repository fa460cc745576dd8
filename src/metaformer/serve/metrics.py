"""What Prometheus reads, in a registry of the service's own: requests, seconds, what waits, batches, restarts."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from metaformer.serve.verbs import Asks

CONTENT_TYPE = CONTENT_TYPE_LATEST
PATHS = ("/predict", "/embed", "/explain", "/models", "/healthz", "/readyz", "/metrics", "/openapi.json", "/")
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


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
    def __init__(self, pool: Asks) -> None:
        self._pool = pool

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]:
        """As the pool stands now."""
        yield from ()
