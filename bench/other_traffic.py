"""Somebody else's requests while something is measured, and what the measured pods work meanwhile."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from bench.cpu_time import pod_seconds
from bench.report import NotMeasurable

Pods = Mapping[str, Sequence[str]]
"""Uids of the pods whose CPU time is told, by what they are."""
CpuSeconds = Mapping[str, float]
"""By what the pods are; empty where this machine is not their node."""


def cpu_seconds(pods: Pods) -> CpuSeconds:
    """Since the pods began."""
    found = {what: [pod_seconds(uid) for uid in uids] for what, uids in pods.items()}
    known = {what: [seconds for seconds in each if seconds is not None] for what, each in found.items()}
    return {what: sum(each) for what, each in known.items() if each and len(each) == len(found[what])}


def since(before: CpuSeconds, now: CpuSeconds) -> CpuSeconds:
    return {what: seconds - before[what] for what, seconds in now.items() if what in before}


@dataclass(frozen=True)
class Span:
    """When something began and ended, by `time.perf_counter`, and what the pods worked in between."""

    began: float
    ended: float
    cpu: CpuSeconds = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def overlaps(self, other: "Span") -> bool:
        return self.began < other.ended and other.began < self.ended


class Others:
    """Somebody else's requests for a version that stays, so many a second while the block lasts."""

    def __init__(self, gateway: str, version: str, per_second: float) -> None:
        self._gateway = gateway
        self._version = version
        self._pause_seconds = 1 / per_second
        self._taken: list[Span] = []
        self._failed: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Others":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def meanwhile_and_else(self, *loads: list[Span]) -> list[list[float]]:
        """For each of the lists, seconds of those requests that shared a moment with one of its spans; at last those
        of all others.

        Raises `NotMeasurable` where one failed.
        """
        if self._failed:
            raise NotMeasurable(f"others' requests failed: {self._failed[0]}")
        parts: list[list[float]] = [[] for _ in (*loads, None)]
        for taken in self._taken:
            meanwhile = (number for number, spans in enumerate(loads) if any(taken.overlaps(span) for span in spans))
            parts[next(meanwhile, -1)].append(taken.seconds)
        return parts

    def _ask(self) -> None:
        due = time.perf_counter()
        body = {"model": self._version, "prompt": "Hello", "max_tokens": 1}
        with httpx2.Client(base_url=self._gateway, timeout=60) as client:
            while not self._stop.wait(max(0.0, due - time.perf_counter())):
                try:
                    client.post("/v1/completions", json=body).raise_for_status()
                except httpx2.HTTPError as error:
                    self._failed.append(str(error))
                # From when it was due: one that waits for another would have waited for the engine, too.
                self._taken.append(Span(due, time.perf_counter()))
                due += self._pause_seconds
