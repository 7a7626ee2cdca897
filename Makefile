# The front door. Everything behind it is in hack/ and can be called by itself.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test e2e bench lint dev-up dev-down deps

SCALE ?= 10

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## from a dump in S3 to three writable clones, on a real Ceph (SCALE=10: pgbench's, 15 MB each)
	@hack/demo --scale $(SCALE)

demo-down: ## take the demo away
	@hack/demo down

test: deps ## everything that has to pass: lint, then all tests against real Ceph, S3 and Postgres
	@hack/lint --not-chart
	@hack/test

e2e: deps ## the scenarios on a real Kubernetes, installed through the chart (e2e/run --help)
	@e2e/run

bench: deps ## measure, and write target/bench/*.json
	@hack/bench
	@e2e/run --bench

lint: deps ## the static half of test
	@hack/lint

dev-up: ## start a Ceph and S3 for development, see hack/dev --help
	@hack/dev up

dev-down: ## remove it
	@hack/dev down

deps: ## install what is missing (apt)
	@hack/deps --quiet
