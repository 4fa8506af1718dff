"""What must be so before kopf starts, which asks once which kinds there are."""

from dataclasses import dataclass, field

import pytest

from finetune_operator.kube.errors import Rejected, Unavailable
from finetune_operator.resources.common import API_VERSION
from finetune_operator.shell import process
from finetune_operator.shell.controller import CUSTOM_PLURALS

ALL = frozenset(CUSTOM_PLURALS)


@dataclass
class ApiServer:
    """Each answer of discovery, one after the other; lists are refused as often as `refusals` says."""

    told: list[frozenset[str] | Exception]
    refusals: int = 0
    listed: list[tuple[str, str]] = field(default_factory=list)

    async def discovered(self, api_version: str) -> frozenset[str]:
        assert api_version == API_VERSION
        answer = self.told.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list(self, plural: str, namespace: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Rejected("no rights yet")
        self.listed.append((plural, namespace))


CASES = {
    "at once": ApiServer([ALL]),
    "a group that is not there": ApiServer([frozenset(), ALL]),
    "a kind that discovery tells later": ApiServer([ALL - {"abtests"}, ALL]),
    "an API server that is away": ApiServer([Unavailable("refused"), ALL]),
    "rights that come later": ApiServer([ALL, ALL], refusals=1),
}


@pytest.mark.parametrize("server", CASES.values(), ids=CASES.keys())
async def test_kinds_are_waited_for_until_discovery_tells_all_of_them(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "DEFINITIONS_RETRY_SECONDS", 0)

    await process._wait_for_definitions(server, ("a", "b"))  # type: ignore[arg-type]

    assert server.told == []
    assert set(server.listed) == {(plural, namespace) for plural in CUSTOM_PLURALS for namespace in ("a", "b")}
