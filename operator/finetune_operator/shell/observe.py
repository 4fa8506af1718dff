"""All reads: from the watches' state, the engines and the api to what the pure reconciles take."""

import asyncio
from dataclasses import dataclass

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.group_sequential import most_votes
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.workloads import deployment_facts, job_facts, pod_facts
from finetune_operator.manifests.batch_inference import batch_job_name
from finetune_operator.manifests.cancellation import cancellation_job_name
from finetune_operator.manifests.common import EVALUATION_LABEL, REVISION_ANNOTATION
from finetune_operator.manifests.evaluation import evaluation_id
from finetune_operator.manifests.preparation import preparation_job_name
from finetune_operator.manifests.serving import wanted_engine
from finetune_operator.manifests.training import training_job_name
from finetune_operator.reconcile import abtest, batch_inference, finetunejob, modelversion
from finetune_operator.reconcile.engine_sharing import Engine
from finetune_operator.reconcile.served_evaluation import EvaluationFacts
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.shell.api import Api
from finetune_operator.shell.engines import Engines
from finetune_operator.shell.state import ClusterState


@dataclass(frozen=True)
class Observer:
    """Where observations come from."""

    state: ClusterState
    engines: Engines
    api: Api

    async def finetunejob(self, job: FineTuneJob) -> finetunejob.Observed:
        namespace, uid = job.metadata.namespace, job.metadata.uid
        body = self.state.get("jobs", namespace, training_job_name(job))
        preparing = self.state.get("jobs", namespace, preparation_job_name(job))
        cancelling = self.state.get("jobs", namespace, cancellation_job_name(job)) if job.spec.openai else None
        jobs = self.state.resources(FineTuneJob, "finetunejobs", namespace)
        return finetunejob.Observed(
            job=job_facts(body) if body else None,
            pods=tuple(pod_facts(pod) for pod in self.state.group("pods", uid)),
            preparation=job_facts(preparing) if preparing else None,
            preparation_pods=tuple(pod_facts(pod) for pod in self.state.group("pods", preparation_job_name(job))),
            versions=self.state.resources(ModelVersion, "modelversions", namespace),
            published=tuple(other.status.model_version for other in jobs if other.status.model_version),
            cancellation=job_facts(cancelling) if cancelling else None,
            progress=await self.api.progress(uid) if finetunejob.wants_progress(job) else None,
        )

    async def modelversion(self, version: ModelVersion) -> modelversion.Observed:
        """Pods before versions: each adapter that they list by then belongs to a version that is known here."""
        namespace, wanted = version.metadata.namespace, wanted_engine(version)
        made = {
            body["metadata"]["name"]
            for body in self.state.all("deployments", namespace)
            if version.metadata.uid in {owner["uid"] for owner in body["metadata"].get("ownerReferences", ())}
        }
        ratings, engine, left = await asyncio.gather(
            self._ratings(version),
            self._engine_wanted(namespace, wanted),
            asyncio.gather(*(self._engine(namespace, name) for name in sorted(made - {wanted}))),
        )
        identity = evaluation_id(version.spec)
        evaluators = self.state.group("pods", version.metadata.uid)
        return modelversion.Observed(
            versions=self.state.resources(ModelVersion, "modelversions", namespace),
            deployment=engine.deployment if engine else None,
            pods=engine.pods if engine else (),
            left=tuple(left),
            tests=self.state.resources(ABTest, "abtests", namespace),
            evaluation=EvaluationFacts(
                jobs=tuple(job_facts(body) for body in self.state.group("jobs", version.metadata.uid)),
                pods=tuple(
                    pod_facts(body)
                    for body in evaluators
                    if identity and body["metadata"]["labels"].get(EVALUATION_LABEL) == identity
                ),
                recorded=frozenset(self.api.recorded.items()),
            ),
            ratings=ratings,
        )

    async def _ratings(self, version: ModelVersion) -> RatingTally | None:
        return await self.api.ratings(version.metadata.uid) if modelversion.wants_ratings(version) else None

    async def _engine_wanted(self, namespace: str, name: str | None) -> Engine | None:
        return await self._engine(namespace, name) if name else None

    async def _engine(self, namespace: str, name: str) -> Engine:
        body = self.state.get("deployments", namespace, name)
        bodies = [pod for pod in self.state.group("pods", name) if pod["metadata"]["namespace"] == namespace]
        if body:
            # A Deployment that was deleted and made anew has a name, and so labels, of pods that are about to go.
            begun = body["metadata"].get("creationTimestamp", "")
            bodies = [pod for pod in bodies if pod["metadata"].get("creationTimestamp", begun) >= begun]
        pods = await self.engines.observe(tuple(pod_facts(pod) for pod in bodies), merged=is_merged_engine(name))
        return Engine(name, deployment_facts(body, REVISION_ANNOTATION) if body else None, pods)

    async def abtest(self, test: ABTest) -> abtest.Observed:
        namespace, uid, decision = test.metadata.namespace, test.metadata.uid, test.spec.decision
        tally = None
        if abtest.is_running(test):
            tally = await self.api.tally(uid, most_votes(decision), decision.by_feedback)
        return abtest.Observed(
            versions=self.state.resources(ModelVersion, "modelversions", namespace),
            tests=self.state.resources(ABTest, "abtests", namespace),
            tally=tally,
        )

    async def batch_inference(self, batch: BatchInference) -> batch_inference.Observed:
        namespace, uid = batch.metadata.namespace, batch.metadata.uid
        body = self.state.get("jobs", namespace, batch_job_name(batch))
        voting = batch.spec.ab_test
        return batch_inference.Observed(
            versions=self.state.resources(ModelVersion, "modelversions", namespace),
            test=self.state.resource(ABTest, "abtests", namespace, voting.name) if voting else None,
            job=job_facts(body) if body else None,
            pods=tuple(pod_facts(pod) for pod in self.state.group("pods", uid)),
            progress=await self.api.progress(uid) if batch_inference.wants_progress(batch) else None,
        )
