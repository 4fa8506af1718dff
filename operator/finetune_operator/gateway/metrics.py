"""What Prometheus reads from the gateway. Labels are names of served models, never what a client made up."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_operator.gateway.usage import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """One registry for each gateway, so that two in one process do not share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "finetune_gateway_requests",
            "Answered requests; status 499 is a client that went away, 502 may also be a stream that broke",
            ("served_name", "arm", "status"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "finetune_gateway_request_duration_seconds",
            "Time to the last byte",
            ("served_name",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "finetune_gateway_time_to_first_token_seconds",
            "Of streams: time to the first event, which an engine sends with its first token",
            ("served_name",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("finetune_gateway_requests_in_flight", "Requests being answered", registry=self.registry)
        self.retries = Counter(
            "finetune_gateway_retries", "Attempts at an engine after the first", ("reason",), registry=self.registry
        )
        self.samples = Counter(
            "finetune_gateway_samples",
            "Samples of ABTests by what became of them",
            ("outcome",),
            registry=self.registry,
        )
        self.usage = Counter(
            "finetune_gateway_usage",
            "Sums of calls and tokens by what became of them on their way to the api",
            ("outcome",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "finetune_gateway_tokens",
            "Tokens that engines told of whole answers: kind prompt, or completion; a stream tells its own only where "
            "the client asks for stream_options.include_usage",
            ("served_name", "kind"),
            registry=self.registry,
        )
        self.untold = Counter(
            "finetune_gateway_answers_without_usage",
            "Whole answers whose engine did not tell how many tokens they have, so that their cost is unknown",
            ("served_name",),
            registry=self.registry,
        )
        self.answers_cost = Counter(
            "finetune_gateway_answers_cost",
            "Cost of whole answers since the gateway pod began, in units of the currency: generated tokens x the price "
            "of the engine's pods at the version's last evaluation",
            ("namespace", "model", "served_name", "currency"),
            registry=self.registry,
        )
        self.unpriced = Counter(
            "finetune_gateway_answers_without_price",
            "Whole answers with known tokens of a version whose condition CostKnown is not true: the cost lacks them",
            ("served_name",),
            registry=self.registry,
        )
        self.shadows = Counter(
            "finetune_gateway_shadows",
            "Copies of requests for the candidates of ABTests by what became of them",
            ("outcome",),
            registry=self.registry,
        )
        self.pairs = Counter(
            "finetune_gateway_pairs",
            "Copied requests whose answers people are to judge by what became of them",
            ("outcome",),
            registry=self.registry,
        )
        self.routes = Gauge("finetune_gateway_routes", "Known model names", registry=self.registry)
        self.route_changes = Counter(
            "finetune_gateway_route_changes", "Times that the route table was swapped", registry=self.registry
        )
        self.unreadable_resources = Gauge(
            "finetune_gateway_unreadable_resources",
            "Resources that this version can't read; their last readable form is used",
            registry=self.registry,
        )

    def count_tokens(self, served_name: str, usage: Usage) -> None:
        """Of one whole answer."""
        if usage.completion_tokens is None and usage.prompt_tokens is None:
            self.untold.labels(served_name).inc()
            return
        self.tokens.labels(served_name, "prompt").inc(usage.prompt_tokens or 0)
        self.tokens.labels(served_name, "completion").inc(usage.completion_tokens or 0)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
