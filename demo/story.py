"""The story in order: ratings, training, serving, a second version, votes, promotion, rollback.

Each chapter returns what it saw, so that the end-to-end tests can assert on the very same run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demo.chat import Answer, Chatter, ask, client
from demo.console import Narrator
from demo.conversations import Conversation
from demo.install import EXAMPLES, PERSON, RELEASE, api_token
from demo.kubectl import DemoError
from demo.target import NAMESPACE, Target
from demo.voting import EVALUATORS, RULE, VotingBooth, references_of
from demo.watching import LiveView

ALIAS = "plato"
BASE_MODEL = "tiny-llama"
FIRST_JOB, SECOND_JOB = "plato-emotion", "plato-ai"
FIRST, SECOND = "plato-v1", "plato-v2"
TEST = "plato-v1-v2"
QUESTIONS = ("You are arrogant", "Are you afraid of the dark?", "You will be happy", "Do you feel pain?")
TRAINING_TIMEOUT_SECONDS = 900
SERVING_TIMEOUT_SECONDS = 600
MAX_ROUNDS = 60
ENGINE_PODS = ("pods", "--selector", "app.kubernetes.io/component=engine")


@dataclass(frozen=True)
class EnginePod:
    """Who the engine is: the same uid and restart count mean that nothing was restarted."""

    name: str
    uid: str
    restarts: int


@dataclass(frozen=True)
class FirstVersion:
    """Chapter 1: trained, deployed, and different from the base model."""

    job: dict[str, Any]
    version: dict[str, Any]
    progress_seen: tuple[dict[str, Any], ...]
    answers: tuple[tuple[str, Answer, Answer], ...]
    deployed_after_seconds: float


@dataclass(frozen=True)
class SecondVersion:
    """Chapter 2: hot-loaded while somebody chats."""

    job: dict[str, Any]
    version: dict[str, Any]
    engine_before: tuple[EnginePod, ...]
    engine_after: tuple[EnginePod, ...]
    chat_answers: int
    chat_failures: tuple[str, ...]
    loaded_after_seconds: float


@dataclass(frozen=True)
class Experiment:
    """Chapter 3: blind votes, a verdict, a promotion."""

    test: dict[str, Any]
    version: dict[str, Any]
    votes_cast: int
    chat_versions: dict[str, int]
    chat_failures: tuple[str, ...]
    answer_after: Answer


@dataclass(frozen=True)
class Rollback:
    """Chapter 4: back to the first version."""

    answer: Answer
    seconds: float
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """All chapters."""

    first: FirstVersion
    second: SecondVersion
    experiment: Experiment
    rollback: Rollback


@dataclass
class Teller:
    """Where the story happens."""

    target: Target
    narrator: Narrator
    conversations: list[Conversation]
    gateway_url: str
    api_url: str

    def tell(self) -> Story:
        """All chapters, with the live view beside them."""
        with LiveView(self.target.kubectl, self.narrator):
            with self.narrator.stage("FineTuneJob 1: gold-star ratings become v1, served by vLLM"):
                first = self.first_version()
            with self.narrator.stage("FineTuneJob 2: v2 is hot-loaded while a client chats"):
                second = self.second_version()
            with self.narrator.stage("ABTest: v1 against v2, decided by blind votes"):
                experiment = self.experiment()
            with self.narrator.stage("Rollback to v1"):
                rollback = self.rollback()
        return Story(first, second, experiment, rollback)

    def first_version(self) -> FirstVersion:
        job, seen = self._train("finetunejob-sft.yaml", FIRST_JOB)
        published = time.monotonic()
        self._wait(f"{FIRST} is deployed", lambda: self._version_in_state(FIRST, "Deployed"), SERVING_TIMEOUT_SECONDS)
        deployed_after = time.monotonic() - published
        openai = client(self.gateway_url)
        names = sorted(model.id for model in openai.models.list())
        self.narrator.say(f"the gateway offers: {', '.join(names)}")
        answers = tuple((q, ask(openai, BASE_MODEL, q), ask(openai, ALIAS, q)) for q in QUESTIONS)
        rows = [(question, base.text, tuned.text) for question, base, tuned in answers]
        self.narrator.table("The same questions, by the openai client", ("question", BASE_MODEL, f"{ALIAS} (v1)"), rows)
        self._show_losses(job)
        return FirstVersion(job, self._get("modelversion", FIRST), seen, answers, deployed_after)

    def second_version(self) -> SecondVersion:
        before = self._engine_pods()
        with Chatter(self.gateway_url, ALIAS, QUESTIONS) as chatter:
            job, _ = self._train("finetunejob-second-domain.yaml", SECOND_JOB)
            published = time.monotonic()
            self._wait(f"{SECOND} is loaded", lambda: self._version_in_state(SECOND, "Ready"), SERVING_TIMEOUT_SECONDS)
            loaded_after = time.monotonic() - published
            ask(client(self.gateway_url), SECOND, QUESTIONS[0])
        after = self._engine_pods()
        self.narrator.say(f"{chatter.answers} answers meanwhile, {len(chatter.failures)} failures")
        for title, pods in (("before", before), ("after", after)):
            for pod in pods:
                self.narrator.say(f"engine {title}: {pod.name}, uid {pod.uid}, {pod.restarts} restarts")
        self._show_losses(job)
        failures = tuple(chatter.failures)
        version = self._get("modelversion", SECOND)
        return SecondVersion(job, version, before, after, chatter.answers, failures, loaded_after)

    def experiment(self) -> Experiment:
        self._apply("abtest.yaml")
        self._wait("the ABTest runs", lambda: self._status("abtest", TEST).get("phase") == "Running", 120)
        self.narrator.say(f"rule of the evaluators: {RULE}")
        with Chatter(self.gateway_url, ALIAS, QUESTIONS) as chatter:
            # Each subject keeps its arm, so a split needs several subjects.
            subjects = [_subject_version(self.gateway_url, f"reader-{number}") for number in range(20)]
            cast = self._vote_until_verdict()
        split = {version: subjects.count(version) for version in sorted(set(subjects))}
        self.narrator.say(f"20 subjects of the alias were split: {split}")
        status = self._status("abtest", TEST)
        self.narrator.say(self.target.kubectl.run("get", "abt", TEST, "--output", "wide"))
        if status["verdict"] == "Won":
            self._wait(f"{SECOND} is promoted", lambda: self._version_in_state(SECOND, "Deployed"), 60)
        answer = ask(client(self.gateway_url), ALIAS, QUESTIONS[0])
        self.narrator.say(f"the alias now answers from {answer.version}")
        test, version = self._get("abtest", TEST), self._get("modelversion", SECOND)
        return Experiment(test, version, cast, split, tuple(chatter.failures), answer)

    def rollback(self) -> Rollback:
        patch = '{"spec":{"state":"Deployed"}}'
        self.narrator.command(f"kubectl patch modelversion {FIRST} --type merge --patch '{patch}'")
        openai = client(self.gateway_url)
        with Chatter(self.gateway_url, ALIAS, QUESTIONS) as chatter:
            self.target.kubectl.run("patch", "modelversion", FIRST, "--type", "merge", "--patch", patch)
            patched = time.monotonic()
            # One token, since how long an answer takes is the model's affair and not the rollback's.
            answer = ask(openai, ALIAS, QUESTIONS[0], max_tokens=1)
            while answer.version != FIRST and time.monotonic() - patched < 30:
                answer = ask(openai, ALIAS, QUESTIONS[0], max_tokens=1)
            seconds = time.monotonic() - patched
        self.narrator.say(f"the first token {seconds:.2f} s after the patch comes from {answer.version}")
        # The gateway follows the patch itself; the operator tells of it a moment later.
        self._wait(f"the status of {FIRST} tells so", lambda: self._version_in_state(FIRST, "Deployed"), 60)
        self.narrator.say(self.target.kubectl.run("get", "modelversions"))
        return Rollback(answer, seconds, tuple(chatter.failures))

    def _train(self, manifest: str, name: str) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """Apply, follow until the end; returns the finished job and every distinct progress that its status had."""
        self._apply(manifest)
        seen: list[dict[str, Any]] = []

        def finished() -> bool:
            status = self._status("finetunejob", name)
            progress = status.get("progress")
            if progress and (not seen or seen[-1] != progress):
                seen.append(progress)
            return status.get("phase") in ("Succeeded", "Failed")

        self._wait(f"FineTuneJob {name} ends", finished, TRAINING_TIMEOUT_SECONDS)
        job = self._get("finetunejob", name)
        if job["status"]["phase"] != "Succeeded":
            raise DemoError(f"FineTuneJob {name}: {job['status']['message']}")
        return job, tuple(seen)

    def _vote_until_verdict(self) -> int:
        references = references_of(self.conversations)
        token = api_token(self.target)
        booth = VotingBooth(self.api_url, token, NAMESPACE, TEST)
        cast = 0
        for _ in range(MAX_ROUNDS):
            for evaluator in EVALUATORS:
                ballot = booth.cast(evaluator, references)
                cast += 1
                self.narrator.say(f"  {evaluator.name} on {ballot['prompt']!r}: {ballot['vote']}")
            if self._status("abtest", TEST).get("verdict"):
                return cast
        self._wait("a verdict", lambda: self._status("abtest", TEST).get("verdict"), 30)
        return cast

    def _show_losses(self, job: dict[str, Any]) -> None:
        result, dataset = job["status"]["result"], job["status"]["dataset"]
        self.narrator.say(
            f"loss of {dataset['testRows']} held-out rows: base {result['baseTestLoss']}, "
            f"fine-tuned {result['testLoss']} (trained on {dataset['rows']} rows)"
        )
        if evaluation := job["status"].get("evaluation"):
            scores = (f"{score['name']} {score['base']} -> {score['fineTuned']}" for score in evaluation["metrics"])
            self.narrator.say(f"scores of {evaluation['examples']} held-out answers: {', '.join(scores)}")

    def _engine_pods(self) -> tuple[EnginePod, ...]:
        pods = self.target.kubectl.get(*ENGINE_PODS)["items"]
        return tuple(
            EnginePod(
                pod["metadata"]["name"],
                pod["metadata"]["uid"],
                sum(container["restartCount"] for container in pod["status"].get("containerStatuses", [])),
            )
            for pod in pods
        )

    def _apply(self, manifest: str) -> None:
        self.narrator.command(f"kubectl apply --namespace {NAMESPACE} --filename examples/{manifest}")
        self.target.kubectl.apply(EXAMPLES / manifest)

    def _get(self, kind: str, name: str) -> dict[str, Any]:
        return self.target.kubectl.get(kind, name)

    def _status(self, kind: str, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self._get(kind, name).get("status", {})
        return status

    def _version_in_state(self, name: str, state: str) -> bool:
        version = self.target.kubectl.find("modelversion", name)
        status = version.get("status", {}) if version else {}
        if status.get("state") == "Failed":
            raise DemoError(f"ModelVersion {name}: {status.get('message')}")
        return status.get("state") == state

    def _wait(self, what: str, check: Callable[[], object], timeout_seconds: float) -> None:
        self.target.kubectl.wait_for(what, check, timeout_seconds)


def _subject_version(gateway_url: str, subject: str) -> str:
    """Which version answers this person."""
    raw = client(gateway_url).chat.completions.with_raw_response.create(
        model=ALIAS, messages=[{"role": "user", "content": QUESTIONS[0]}], max_tokens=1, user=subject
    )
    return raw.headers.get("x-finetune-version", "")


def closing_rows(story: Story) -> list[tuple[str, str]]:
    """The summary: what happened, in figures."""
    first, second = story.first.job["status"], story.second.job["status"]
    status, votes = story.experiment.test["status"], story.experiment.test["status"]["votes"]
    return [
        ("v1 held-out loss", f"{first['result']['baseTestLoss']} (base) -> {first['result']['testLoss']}"),
        ("v2 held-out loss", f"{second['result']['baseTestLoss']} (base) -> {second['result']['testLoss']}"),
        ("v1: published -> first deployed", f"{story.first.deployed_after_seconds:.1f} s (engine started)"),
        ("v2: published -> answering", f"{story.second.loaded_after_seconds:.1f} s (hot-loaded)"),
        (
            "chat during the hot load",
            f"{story.second.chat_answers} answers, {len(story.second.chat_failures)} failures",
        ),
        ("votes", f"{votes['fineTuned']} v2, {votes['base']} v1, {votes['tie']} ties: {votes['winRatePercent']}"),
        ("verdict", f"{status['verdict']}, p {status['pValue']}"),
        ("rollback: patch -> first token", f"{story.rollback.seconds:.2f} s"),
    ]


def faces() -> list[tuple[str, str]]:
    """What there is to look at, and the command that leads there."""
    kubectl = f"kubectl --namespace {NAMESPACE}"
    return [
        ("the dashboard, which asks for a token", f".venv/bin/ftctl dashboard --namespace {NAMESPACE}"),
        ("a token", f"{kubectl} create token {PERSON} --duration 8h"),
        ("all of it as a live tree", f".venv/bin/ftctl watch --namespace {NAMESPACE}"),
        (
            "any OpenAI client, at http://127.0.0.1:8080/v1",
            f"{kubectl} port-forward service/{RELEASE}-gateway 8080:80",
        ),
        (
            "REST, at http://127.0.0.1:8081/openapi.json, by the same token",
            f"{kubectl} port-forward service/{RELEASE}-api 8081:80",
        ),
    ]
