"""The text that Prometheus reads, by prometheus_client; there is no registry of the process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from virtualchain.metrics import METRICS, Sample

_TOTAL: Final = "_total"
_PARTS: Final = ("_bucket", "_count", "_sum")


class _Samples(Collector):
    """Asks for the samples at each scrape."""

    def __init__(self, ask: Callable[[], Iterable[Sample]]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Family]:
        """Yield the metrics that have samples, in the order of `METRICS`."""
        families: dict[str, list[Sample]] = {}
        for sample in self._ask():
            families.setdefault(_family(sample.name), []).append(sample)
        for name, metric in METRICS.items():
            if name in families:
                family = Family(name.removesuffix(_TOTAL), metric.help, metric.kind)
                for sample in sorted(families[name], key=_place):
                    family.add_sample(sample.name, dict(sample.labels), sample.value)
                yield family


class Exposition:
    """Writes the samples that it asks for; with `process`, also those of this process."""

    def __init__(self, ask: Callable[[], Iterable[Sample]], *, process: bool = False) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Samples(ask))
        if process:
            ProcessCollector(registry=self._registry)

    def write(self, accept: str | None) -> tuple[bytes, str]:
        """Return the text and its media type, of those that an Accept header allows."""
        encode, media_type = choose_encoder(accept or "")
        return encode(self._registry), media_type


def expose(samples: Sequence[Sample], accept: str | None) -> tuple[bytes, str]:
    """Write samples as `Exposition` does."""
    return Exposition(lambda: samples).write(accept)


def _family(name: str) -> str:
    """Return the metric that a sample belongs to."""
    for part in _PARTS:
        metric = name.removesuffix(part)
        if metric in METRICS and METRICS[metric].kind == "histogram":
            return metric
    return name


def _place(sample: Sample) -> tuple[str, float]:
    """Return the place of a sample in its family: the buckets of a histogram go up."""
    return sample.name, float(sample.labels.get("le", 0.0))
