"""The most that an evaluator may have to say fits into a termination message, which kubelet cuts at 4096 bytes."""

from finetune_operator.contract.evaluation import (
    DomainScore,
    EngineMemory,
    EvaluationReport,
    MemoryOf,
    Metric,
    Saturation,
    Score,
    Speed,
)
from finetune_operator.evaluator.measure import DOMAIN_MAX_CHARACTERS, DOMAINS_MAX, ELSEWHERE, NO_TOKENS

KUBELET_MAX_BYTES = 4096
NAME = "a-name-of-a-model-that-fills-a-dns-label-of-sixty-three-letters"


def test_the_largest_report_fits() -> None:
    number = 1234.123456
    speed = Speed(
        mean_latency_seconds=number / 3,
        seconds_per_answer=number / 7,
        tokens_per_second=number / 9,
        p95_latency_seconds=number / 11,
        mean_seconds_to_first_token=number / 13,
    )
    load = Saturation(concurrency=1024, requests_per_second=number, tokens_per_second=100 * number)
    memory = EngineMemory(of=MemoryOf.ACCELERATORS, size_bytes=1_152_921_504_606)
    unsaturated = f"{NAME} was not saturated by 1024 requests at once: raise saturation.maxConcurrency"
    report = EvaluationReport(
        examples=10_000,
        left_out=10_000,
        remark="; ".join((f"{NAME} {ELSEWHERE}", NO_TOKENS, unsaturated, unsaturated)),
        scores=tuple(Score(metric=metric, base=0.123456, fine_tuned=0.123456) for metric in Metric),
        domains=tuple(
            DomainScore(
                domain="\u6f22" * DOMAIN_MAX_CHARACTERS,
                examples=1000,
                metric=Metric.SUBSTRING_MATCH,
                base=0.123456,
                fine_tuned=0.123456,
            )
            for _ in range(DOMAINS_MAX)
        ),
        base_speed=speed,
        fine_tuned_speed=speed,
        base_saturation=load,
        fine_tuned_saturation=load,
        base_memory=memory,
        fine_tuned_memory=memory,
    )
    assert len(report.model_dump_json(by_alias=True, exclude_none=True).encode()) <= KUBELET_MAX_BYTES
