.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help
help:  ## Print this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: venv
venv:  ## Make the Python environment in .venv from uv.lock
	@python3 -m demo.environment

.PHONY: demo
demo: venv  ## Watch the whole loop, ratings to rollback (CLUSTER=existing|kind|local)
	@$(PYTHON) -m demo run

.PHONY: demo-down
demo-down: venv  ## Undo the demo: release, cluster, changes to the host (PURGE=1: its data, too)
	@$(PYTHON) -m demo down

.PHONY: lint
lint: venv  ## Check style, types and layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PYTHON) -m finetune_operator crds --check crds
	$(PYTHON) -m finetune_operator crds --check helm/finetune-operator/files/crds

.PHONY: up
up: venv  ## Bring up the cluster with the product in it, nothing more (CLUSTER=existing|kind|local)
	@$(PYTHON) -m demo up

.PHONY: unit
unit: venv  ## Run the tests that need no cluster
	.venv/bin/pytest tests/unit tests/local_cluster

.PHONY: cluster
cluster: venv  ## Run the tests against a real API server
	.venv/bin/pytest tests/helm tests/cluster

.PHONY: e2e
e2e: up  ## Run the whole loop on a real node, asserted
	.venv/bin/pytest tests/e2e --ignore=tests/e2e/test_ten_thousand_requests.py --ignore=tests/e2e/test_killed_pods.py

.PHONY: load
load: up  ## Ask ten thousand requests while versions change and engines are replaced or killed (30 minutes)
	.venv/bin/pytest tests/e2e/test_ten_thousand_requests.py tests/e2e/test_killed_pods.py

.PHONY: votes
votes: venv  ## Cast fifty thousand votes while database and api are killed (an hour on two cores)
	FINETUNE_TEST_VOTES=50000 .venv/bin/pytest --timeout=7200 tests/unit/web/test_votes_and_kills.py

.PHONY: contract
contract: venv  ## Hold REST to its OpenAPI document and attack it, with many requests (20 minutes)
	FINETUNE_CONTRACT_EXAMPLES=100 .venv/bin/pytest --timeout=7200 tests/unit/web/contract

.PHONY: images
images: venv  ## Run the images' trainer and server, however they did before (30 minutes)
	.venv/bin/pytest tests/images

.PHONY: cuda
cuda: venv  ## Build the CUDA images and check what can be checked without a GPU (30 minutes, 60 GB)
	.venv/bin/pytest tests/cuda

.PHONY: test
test: lint  ## Run everything: lint, unit, cluster, images (a pass is kept until a file changes), end to end
	$(PYTHON) -m tests.all_tiers

.PHONY: crds
crds: venv  ## Write the CRDs from the models
	$(PYTHON) -m finetune_operator crds crds
	$(PYTHON) -m finetune_operator crds helm/finetune-operator/files/crds

.PHONY: bench
bench: venv  ## Run the benchmarks; figures go to standard output
	$(PYTHON) -m bench
