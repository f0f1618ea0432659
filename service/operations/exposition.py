"""The numbers of this process as Prometheus reads them. Imported when they are first asked for."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.kernel.metrics import Metrics, Spread
from service.operations.model import Process


def text(metrics: Metrics, process: Process) -> bytes:
    """Everything, in the text format 0.0.4."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Numbers(metrics, process))
    return generate_latest(registry)


class Numbers(Collector):
    """What was counted, and how things stand just now."""

    def __init__(self, metrics: Metrics, process: Process) -> None:
        self._metrics, self._process = metrics, process

    def collect(self) -> Iterator[Metric]:
        yield from requests(self._metrics)
        yield from commits(self._metrics)
        yield from sweeps(self._metrics)
        yield from standing(self._process)


def requests(metrics: Metrics) -> Iterator[Metric]:
    """Requests and how long they took."""
    answers = CounterMetricFamily(
        "holdfast_requests", "Requests answered, by operation and status.", labels=("operation", "status")
    )
    for (operation, status), count in metrics.answers.items():
        answers.add_metric((operation, str(status)), count)
    yield answers
    took = HistogramMetricFamily(
        "holdfast_request_seconds",
        "Time until an answer was ready, by operation; long polls wait in it.",
        labels=("operation",),
    )
    for operation, spread in metrics.seconds.items():
        took.add_metric((operation,), buckets(spread), spread.total)
    yield took


def commits(metrics: Metrics) -> Iterator[Metric]:
    """Commands, the transactions that they went in, and what the store said."""
    commands = CounterMetricFamily("holdfast_commands", "Commands decided in a transaction.", labels=("command",))
    for kind, count in metrics.commands.items():
        commands.add_metric((kind.__name__,), count)
    yield commands
    sizes = HistogramMetricFamily("holdfast_transaction_commands", "Commands in a transaction.")
    sizes.add_metric((), buckets(metrics.batches), metrics.batches.total)
    yield sizes
    took = HistogramMetricFamily(
        "holdfast_transaction_seconds", "Time of a transaction of commands, its wait for a turn included."
    )
    took.add_metric((), buckets(metrics.transactions), metrics.transactions.total)
    yield took
    objections = CounterMetricFamily(
        "holdfast_store_objections",
        "Transactions that the store undid, by the kind of its error; conflicts are tried again.",
        labels=("kind",),
    )
    for name, count in metrics.objections.items():
        objections.add_metric((name,), count)
    yield objections


def sweeps(metrics: Metrics) -> Iterator[Metric]:
    """When the sweeps of this process were done."""
    done = GaugeMetricFamily(
        "holdfast_sweep_done_timestamp_seconds", "When a sweep was last done by this process.", labels=("sweep",)
    )
    for name, at in metrics.swept.items():
        done.add_metric((name,), at / 1000)
    yield done
    failed = CounterMetricFamily(
        "holdfast_sweep_failures", "Times that a sweep could not be done by this process.", labels=("sweep",)
    )
    for name, count in metrics.put_off.items():
        failed.add_metric((name,), count)
    yield failed


def standing(process: Process) -> Iterator[Metric]:
    """How things stand just now."""
    what = GaugeMetricFamily("holdfast_info", "What runs here; the value is 1.", labels=("version", "store"))
    what.add_metric((process.version, process.store), 1)
    yield what
    for name, said, value in (
        ("commands_waiting", "Commands that wait for a transaction.", process.waiting),
        ("requests_parked", "Long polls and streams that wait to be woken.", process.parked),
    ):
        yield GaugeMetricFamily(f"holdfast_{name}", said, value=value)


def buckets(spread: Spread) -> list[tuple[str, float]]:
    """How many values are no larger than each bound."""
    bounds = [*map(str, spread.bounds), "+Inf"]
    return list(zip(bounds, accumulate(spread.counts), strict=True))
