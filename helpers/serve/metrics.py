"""What a vLLM server counts, as one small value.

In: the text that the server gives at /metrics, in Prometheus' format. Out: `ServerMetrics`.
"""

from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class ServerMetrics:
    """A moment of a server, its engines (data parallel) taken together.

    Attributes:
        running: requests that are being answered.
        waiting: requests in the queue.
        prompt_tokens: read since the start, those from the prefix cache among them.
        generation_tokens: written since the start.
        prefix_queries: prompt tokens that were looked for in the prefix cache since the start.
        prefix_hits: of these, how many were there.
        kv_usage: share of the KV cache in use, 0 to 1, of the fullest engine.
    """

    running: int
    waiting: int
    prompt_tokens: int
    generation_tokens: int
    prefix_queries: int
    prefix_hits: int
    kv_usage: float

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the prompt tokens that did not have to be computed; 0 if there were none."""
        return self.prefix_hits / self.prefix_queries if self.prefix_queries else 0.0

    def since(self, earlier: "ServerMetrics") -> "ServerMetrics":
        """The same, with tokens counted from `earlier` on."""
        counted = ("prompt_tokens", "generation_tokens", "prefix_queries", "prefix_hits")
        return replace(self, **{name: getattr(self, name) - getattr(earlier, name) for name in counted})


# The samples of vLLM's v1 engine (vllm/v1/metrics/loggers.py).
SAMPLES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "kv_usage": "vllm:kv_cache_usage_perc",
}


def read_metrics(text: str) -> ServerMetrics:
    """From what /metrics answers; there is a sample for each engine.

    Raises:
        ValueError: a sample is missing: this is no vLLM, or another version of it.
    """
    found: dict[str, list[float]] = {sample: [] for sample in SAMPLES.values()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in found:
                found[sample.name].append(sample.value)
    if missing := [sample for sample, values in found.items() if not values]:
        raise ValueError(f"The server's /metrics lacks {', '.join(missing)}: it is no vLLM of the version pinned here.")
    counts = {name: int(sum(found[sample])) for name, sample in SAMPLES.items() if name != "kv_usage"}
    return ServerMetrics(**counts, kv_usage=max(found[SAMPLES["kv_usage"]]))
