# tunrouter: `make help` says what there is. Everything runs as root: namespaces, TUN devices and nftables are real here.

SHELL    := /bin/bash
VENV     := .venv
PYTHON   := $(VENV)/bin/python
STAMP    := $(VENV)/.installed
RUNTIMES := $(VENV)/.runtimes
CROSS    := $(VENV)/.cross
KERNEL   := setup.py tunrouter/dataplane/build.py tunrouter/core/bounds.py $(wildcard tunrouter/dataplane/c/*)
PLUGIN   := tunrouter/edge/tunrouter-cni
IMAGE    := build/tunrouter-image.tar
ARGS     ?=
# Without the kernel, the network and the clock: these run side by side.
PURE     := tests/core tests/sim tests/cni

MANIFEST := k8s/tunrouter-daemonset-k8s.yaml

.DEFAULT_GOAL := help
.PHONY: help image install install-service uninstall-service demo test lint test-pure soak manifests bench-compare bench-check bench-sessions bench-pods fresh-machine clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

install: $(STAMP) ## a virtual environment in .venv, and the host packages that are missing

$(STAMP): setup.cfg pyproject.toml .ci/install $(KERNEL) $(wildcard cni-plugin/c/*)
	@.ci/install $(VENV)
	@touch $@

install-service: ## a service of this host: /opt/tunrouter, unit, completions, CNI plugin (docs/systemd.md)
	@systemd/install

uninstall-service: ## takes all of that away again, and the network off this host (PURGE=1: configuration and identity, too)
	@systemd/install remove

image: $(IMAGE) ## a container image: build/tunrouter-image.tar (docs/image.md; FRESH=1 forgets earlier builds)
	@echo "$(IMAGE): $$(($$(stat -c %s $(IMAGE)) / 1000000)) MB"

$(IMAGE): Dockerfile .dockerignore setup.cfg setup.py pyproject.toml MANIFEST.in README.md LICENSE \
		$(shell find image cni-plugin tunrouter -type f -not -name '*.pyc' -not -name '*.so' -not -name _kernel.c -not -path $(PLUGIN)) \
		$(if $(FRESH),fresh) | $(RUNTIMES)
	@image/build

.PHONY: fresh
fresh:

demo: install ## three hosts, three agents, six pods, 1 GiB, on this machine (DEMO_UNDERLAY=6 ARGS="--forward-drop --nf-call 1 --size 64M")
	@$(PYTHON) -m tunrouter.bench.demo $(ARGS)

lint: install ## style, types and import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(RUNTIMES): $(STAMP)
	@.ci/install $(VENV) runtimes
	@touch $@

test: lint $(RUNTIMES) ## lint, then every test but the soak (ARGS="tests/core -k replay")
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory --jobs 2 test-pure image
	$(VENV)/bin/pytest -m "not soak and not alone" --numprocesses 2 --dist loadfile $(PURE:%=--ignore %)
	$(VENV)/bin/pytest -m "alone and not soak"
else
	$(VENV)/bin/pytest -m "not soak" $(ARGS)
endif

# The image is mostly waited for (packages, compilers), so it is made beside these.
test-pure: $(RUNTIMES)
	$(VENV)/bin/pytest -m "not soak" --numprocesses 2 --dist loadscope $(PURE)

$(CROSS): $(STAMP)
	@.ci/install $(VENV) cross
	@touch $@

soak: install $(RUNTIMES) $(CROSS) ## the long tests: 1 GiB through 1 % loss, 10⁸ inputs for the sanitized kernel
	$(VENV)/bin/pytest -m soak $(ARGS)

manifests: $(RUNTIMES) ## k8s/tunrouter-daemonset-k8s.yaml, rendered from k8s/base
	@{ echo '# Rendered from k8s/base by "make manifests": change it there. What each object is for: docs/kubernetes.md'; \
	   kubectl kustomize k8s/base; } > $(MANIFEST)

bench-compare: install ## beside wireguard-go, Nebula, tinc, VXLAN and bare veth (ARGS="--only wireguard-go --scenario tcp-1")
	@$(PYTHON) -m benchmarks.compare $(ARGS)

bench-check: install ## beside the revision in benchmarks/baseline.json: nothing became slower (ARGS="--base REV")
	@$(PYTHON) -m benchmarks.check $(ARGS)

bench-sessions: install ## what 10, 100 and 1,000 sessions cost the flow of one (ARGS="--rounds 9")
	@$(PYTHON) -m benchmarks.sessions $(ARGS)

bench-pods: install $(RUNTIMES) ## what adding a pod costs, beside Go's bridge and host-local (ARGS="--rounds 101")
	@$(PYTHON) -m benchmarks.pods $(ARGS)

fresh-machine: ## the demo and the tests in a new Debian 12 that holds only git and make (ARGS="demo test")
	tests/fresh-machine.sh $(ARGS)

clean: ## removes what the build and the tests made, and namespaces that a killed lab left
	@if [ -x $(PYTHON) ]; then $(PYTHON) -c 'from tunrouter.bench.namespaces import sweep; sweep()'; fi
	rm -rf $(VENV) build dist *.egg-info tunrouter/dataplane/_kernel.abi3.so tunrouter/dataplane/_kernel.c $(PLUGIN) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
