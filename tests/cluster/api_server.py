"""The api process as far as the operator asks it: progress, tallies and evaluations, over HTTP and by the contract."""

from aiohttp import web

from finetune_operator.contract.experiments import AbTestTally, ArmTallies, VoteCounts
from finetune_operator.contract.places import EVALUATION_PATH, PROGRESS_PATH, TALLY_PATH
from finetune_operator.contract.served_evaluation import RecordedEvaluation
from finetune_operator.contract.training import JobIdentity, LatestProgress, Progress
from tests.cluster.addresses import PORT, fresh_address
from tests.cluster.operator_process import INTERNAL_TOKEN
from tests.cluster.samples import NOON, Manifest


class ApiServer:
    """What it answers is set by the test; it can go away and come back."""

    def __init__(self) -> None:
        self.progress: dict[str, Progress] = {}
        self.tallies: dict[str, AbTestTally] = {}
        self.evaluations: dict[str, RecordedEvaluation] = {}
        self.requests = 0
        self._address = fresh_address()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self._address}:{PORT}"

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get(PROGRESS_PATH, self._latest_progress)
        application.router.add_get(TALLY_PATH, self._tally)
        application.router.add_put(EVALUATION_PATH, self._evaluation)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._address, PORT).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    def report(self, job: Manifest, step: int, total_steps: int = 600, **fields: object) -> None:
        """The trainer of this job posted its progress."""
        metadata = job["metadata"]
        identity = JobIdentity(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
        measurement = {
            "job": identity,
            "attempt": "first",
            "step": step,
            "total_steps": total_steps,
            "epoch": 3 * step / total_steps,
            "total_epochs": 3.0,
            "loss": 0.234,
            "best_loss": 0.189,
            "eta_seconds": 1200,
            "time": NOON,
        }
        self.progress[metadata["uid"]] = Progress.model_validate(measurement | fields)

    def count(
        self,
        test: Manifest,
        *,
        candidate: int = 0,
        baseline: int = 0,
        tie: int = 0,
        both_bad: int = 0,
        arms: ArmTallies | None = None,
        **told: object,
    ) -> None:
        """So many people have voted, this is what production traffic showed, and what else the tally tells."""
        votes = VoteCounts(fine_tuned=candidate, base=baseline, tie=tie, both_bad=both_bad)
        tally = AbTestTally(votes=votes, arms=arms or ArmTallies()).model_copy(update=told)
        self.tallies[test["metadata"]["uid"]] = tally

    async def _latest_progress(self, request: web.Request) -> web.Response:
        self._authorize(request)
        uid = request.query["job"]
        known = {uid: self.progress[uid]} if uid in self.progress else {}
        return _json(LatestProgress(known).model_dump_json(by_alias=True))

    async def _tally(self, request: web.Request) -> web.Response:
        self._authorize(request)
        tally = self.tallies.get(request.match_info["uid"], AbTestTally())
        if tally.votes.total > int(request.query["max_votes"]):
            raise web.HTTPInternalServerError(text="the api never counts more votes than it is asked for")
        return _json(tally.model_dump_json(by_alias=True))

    async def _evaluation(self, request: web.Request) -> web.Response:
        self._authorize(request)
        text = await request.text()
        self.evaluations[request.match_info["id"]] = RecordedEvaluation.model_validate_json(text)
        return web.Response(status=204)

    def _authorize(self, request: web.Request) -> None:
        self.requests += 1
        if request.headers.get("Authorization") != f"Bearer {INTERNAL_TOKEN}":
            raise web.HTTPUnauthorized


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
