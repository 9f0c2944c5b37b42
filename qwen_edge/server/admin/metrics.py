"""GET /metrics: counters since the start and present values, in Prometheus' format.

Names and units follow https://prometheus.io/docs/practices/naming/. Each application has its own metrics, which are
used on its event loop only.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qwen_edge.chat.messages import Delta, Finish, Usage, combined_usage, summed_usage
from qwen_edge.protocol.messages import MissReason
from qwen_edge.supervisor.state import EngineState
from qwen_edge.supervisor.supervisor import Supervisor

_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)


class Metrics:
    """Counts requests and tokens, and collects further values from the engine's supervisor and from `others`."""

    def __init__(self, engine: Supervisor, *others: Collector) -> None:
        self._registry = registry = _Registry()
        for collector in (_Engine(engine), *others):
            registry.register(collector)
        self._requests = Counter(
            "qwen_edge_requests",
            "HTTP requests ended, by class of status; those to /health, /metrics and /v1/device... are not counted",
            ["status"],
            registry=registry,
        )
        self._prompt = Counter("qwen_edge_prompt_tokens", "Tokens of prompts", registry=registry)
        self._cached = Counter(
            "qwen_edge_cached_prompt_tokens", "Tokens of prompts that were in the KV cache", registry=registry
        )
        self._completion = Counter("qwen_edge_completion_tokens", "Tokens of answers", registry=registry)
        self._forced = Counter(
            "qwen_edge_forced_tokens",
            "Tokens of answers that a shape forced, so that none was sampled",
            registry=registry,
        )
        self._masks = Counter(
            "qwen_edge_shape_masks", "Tokens that were sampled under a shape's mask", registry=registry
        )
        self._steering = Counter(
            "qwen_edge_shape_seconds", "Seconds that shapes took beside the model", registry=registry
        )
        self._misses = Counter(
            "qwen_edge_prefix_misses", "Prompts that missed the KV cache, by reason", ["reason"], registry=registry
        )
        self._missed = Counter(
            "qwen_edge_prefix_missed_tokens",
            "Tokens that had to be computed of prompts that missed the KV cache, by reason",
            ["reason"],
            registry=registry,
        )
        self._first = Histogram(
            "qwen_edge_first_token_seconds",
            "Seconds from a request to the first text of its answer, waiting included",
            buckets=_SECONDS,
            registry=registry,
        )
        self._answer = Histogram(
            "qwen_edge_answer_seconds",
            "Seconds from a request to the end of its answer, waiting included",
            buckets=_SECONDS,
            registry=registry,
        )
        for status in ("2xx", "4xx", "5xx"):  # exported from the start: a rate needs the zero before the first request
            self._requests.labels(status)
        for reason in get_args(MissReason):
            self._misses.labels(reason)
            self._missed.labels(reason)

    def ended(self, status: int) -> None:
        """Count a request by the status of its response; 499 if the client disconnected first."""
        self._requests.labels(f"{status // 100}xx").inc()

    async def watch(
        self, events: AsyncGenerator[tuple[int, Delta | Finish], None], choices: Sequence[int]
    ) -> AsyncGenerator[tuple[int, Delta | Finish], None]:
        """Pass on the events of one request, and count its answers and tokens. `choices`: the number of answers to each
        of its prompts. If the request is broken off, its finished answers count."""
        prompts = [prompt for prompt, answers in enumerate(choices) for _ in range(answers)]  # of each answer
        began, begun, finishes = time.monotonic(), False, list[tuple[int, Usage]]()
        try:
            async with aclosing(events):
                async for choice, event in events:
                    if not begun:
                        begun = True
                        self._first.observe(time.monotonic() - began)
                    if isinstance(event, Finish):
                        finishes.append((prompts[choice], event.usage))
                        if len(finishes) == len(prompts):
                            self._answer.observe(time.monotonic() - began)
                            self._count(finishes)
                    yield choice, event
        finally:
            if 0 < len(finishes) < len(prompts):
                self._count(finishes)

    @property
    def cache(self) -> dict[str, int]:
        """The number of prompt tokens since the start, and how many of them were in the KV cache."""
        names = {
            "prompt_tokens": "qwen_edge_prompt_tokens_total",
            "cached_tokens": "qwen_edge_cached_prompt_tokens_total",
        }
        return {name: int(self._registry.get_sample_value(total) or 0) for name, total in names.items()}

    def page(self) -> tuple[str, bytes]:
        """The content type and the text of the response."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _count(self, finishes: Sequence[tuple[int, Usage]]) -> None:
        """Count usages, each with the number of its prompt."""
        by_prompt = defaultdict[int, list[Usage]](list)
        for prompt, one in finishes:
            by_prompt[prompt].append(one)
        usage = summed_usage([combined_usage(usages) for usages in by_prompt.values()])
        self._prompt.inc(usage.prompt_tokens)
        self._cached.inc(usage.cached_tokens)
        self._completion.inc(usage.completion_tokens)
        self._forced.inc(usage.steered.forced)
        self._masks.inc(usage.steered.masks)
        self._steering.inc(usage.steered.seconds)
        if usage.missed:
            self._misses.labels(usage.missed).inc()
            self._missed.labels(usage.missed).inc(usage.prompt_tokens - usage.cached_tokens)


class _Registry(CollectorRegistry):
    """A counter without the library's additional `..._created` timestamp."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Engine(Collector):
    """The supervisor's present values."""

    def __init__(self, engine: Supervisor) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "qwen_edge_engine_restarts", "Engines that were lost and replaced", self._engine.restarts
        )
        yield GaugeMetricFamily(
            "qwen_edge_pending_requests", "Requests that are being answered or wait", self._engine.pending
        )
        states = GaugeMetricFamily("qwen_edge_engine_state", "1 for the engine's present state", labels=["state"])
        for state in EngineState:
            states.add_metric([state.value], float(state is self._engine.state))
        yield states
