# Everything from a bare machine: each target installs and builds what it needs. Debian 12, root, Rust, Go.
# Caches are outside the checkout: CACHE=/somewhere/else moves them.

VERSION := 0.1.0
CACHE ?= $(HOME)/.cache/datjob
BIN := $(CACHE)/bin
IMAGES := $(CACHE)/images
export LIBTORCH := $(CACHE)/libtorch-2.11.0
# A folder for each checkout: cargo tells what is fresh by times, and would take another checkout's build for this one's.
export CARGO_TARGET_DIR ?= $(CACHE)/target/$(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)
export DATJOB_CACHE := $(CACHE)

# One set of packages for programs and tests: cargo unifies features within a set, and a dependency with other features is
# compiled once more. `--examples`, of which there are none, makes programs count the features of tests.
PACKAGES := --workspace --exclude datjob-fuzz --exclude datjob-e2e
TORCHLESS := -p datjob-operator -p datjob-api -p datjob-data
BUILD := cargo build --release $(PACKAGES) --bins --examples
FUZZ_SECONDS ?= 60
OPERATOR := $(CARGO_TARGET_DIR)/release/datjob-operator
TRAINER := $(CARGO_TARGET_DIR)/release/dat-trainer
PLUGIN := $(CACHE)/lib/libdatjob_cuda.so
GPU_BUNDLE := $(CACHE)/gpu-bundle
CUDA_LIBRARIES := $(CACHE)/cuda-libraries-13.0
CLUSTER := $(BIN)/cluster

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: images ## a Kubernetes on this machine (or KUBECONFIG=…, REGISTRY=…), a DatJob, its robust accuracy
	@scripts/demo.sh "$(CLUSTER)" "$(IMAGES)"

.PHONY: test
test: lint unit chart ## all tests, the ones on a real cluster included
	@# The fuzz targets are built while the end-to-end tests wait for their cluster.
	@$(MAKE) --no-print-directory -j 2 fuzz-seeds e2e
	@echo "make test: all passed"

.PHONY: check
check: prerequisites ## what needs neither libtorch nor a cluster: lints and tests of operator, API and data
	cargo fmt --all --check
	scripts/module-cycles.py */src trainer/*/src
	cargo clippy --release $(TORCHLESS) --all-targets -- -D warnings
	cargo test --release $(TORCHLESS)

.PHONY: lint
lint: prerequisites libtorch ## formatting, clippy, circles of modules
	cargo fmt --all --check
	scripts/module-cycles.py */src trainer/*/src
	cargo clippy --release --workspace --all-targets -- -D warnings

.PHONY: unit
unit: prerequisites libtorch plugin ## tests that need no cluster
	cargo test --release $(PACKAGES)
	cd e2e/cluster && CGO_ENABLED=0 go test -trimpath ./...

.PHONY: fuzz
fuzz: prerequisites ## random bytes for every parser of foreign bytes; FUZZ_SECONDS=3600 for longer
	@scripts/fuzz.sh "$(CACHE)/fuzz" -max_total_time=$(FUZZ_SECONDS) $(TARGETS)

.PHONY: fuzz-seeds
fuzz-seeds: prerequisites ## the seeds of every fuzz target, once: nothing in it is random
	@scripts/fuzz.sh "$(CACHE)/fuzz-seeds" -runs=0

.PHONY: chart
chart: cluster-binary ## the chart: lint, templates, schema of its values
	HELM="$(CLUSTER) helm" scripts/chart-test.sh

.PHONY: e2e
e2e: images ## the mission on a real cluster: the one on this machine, or KUBECONFIG=…
	@scripts/e2e.sh "$(CLUSTER)" "$(IMAGES)"

.PHONY: audit
audit: ## licences, bans and sources of all dependencies (deny.toml); builds cargo-deny first
	cargo install --quiet --locked --version 0.20.2 --root "$(CACHE)/tools" --target-dir "$(CACHE)/target-tools" cargo-deny
	"$(CACHE)/tools/bin/cargo-deny" --all-features check bans licenses sources

.PHONY: bench
bench: prerequisites libtorch ## speed of a step, beside PyTorch's; by method; over a slow link; of decoding, beside Pillow's
	DATJOB_BENCH_PYTHON="$$(scripts/pytorch.sh)" && export DATJOB_BENCH_PYTHON && cargo bench $(PACKAGES) --benches

.PHONY: test-gpu
test-gpu: gpu-bundle ## tests for a machine with a GPU; without one it says that they are skipped
	@scripts/gpu.sh test "$(GPU_BUNDLE)" "$(LIBTORCH)" "$(CUDA_LIBRARIES)"

.PHONY: bench-gpu
bench-gpu: gpu-bundle ## speed of an adversarial step on a GPU, beside PyTorch's
	@scripts/gpu.sh bench "$(GPU_BUNDLE)" "$(LIBTORCH)" "$(CUDA_LIBRARIES)"

.PHONY: gpu-bundle
gpu-bundle: programs plugin ## both as prepared binaries, for a machine without network or toolchain (docs/gpu.md)
	@scripts/gpu-bundle.sh "$(GPU_BUNDLE)" "$(TRAINER)" "$(PLUGIN)"

.PHONY: images
images: programs cluster-binary ## the container images, as OCI archives
	@OPERATOR_BINARY="$(OPERATOR)" TRAINER_BINARY="$(TRAINER)" TAG="$(VERSION)" scripts/images.sh "$(IMAGES)"

.PHONY: image-cuda
image-cuda: images plugin ## the trainer's image for NVIDIA GPUs (downloads 2.4 GB)
	@scripts/cuda-libraries.sh "$(CUDA_LIBRARIES)"
	@OPERATOR_BINARY="$(OPERATOR)" TRAINER_BINARY="$(TRAINER)" TAG="$(VERSION)" CUDA_LIBRARIES="$(CUDA_LIBRARIES)" \
		CUDA_PLUGIN="$(PLUGIN)" scripts/images.sh "$(IMAGES)" trainer-cuda

.PHONY: programs
programs: prerequisites libtorch ## the programs of operator and trainer
	@echo "==> Building the operator and the trainer (the first time: some minutes)"
	@$(BUILD)
	@install -D "$(OPERATOR)" "$(BIN)/datjob-operator"
	@install -D "$(TRAINER)" "$(BIN)/dat-trainer"

.PHONY: trainer
trainer: prerequisites libtorch ## the trainer's program alone, for machines without Kubernetes
	@echo "==> Building the trainer (the first time: some minutes)"
	@cargo build --release -p datjob-trainer
	@install -D "$(TRAINER)" "$(BIN)/dat-trainer"

.PHONY: generate
generate: programs ## the CRD, from its types, into crds/ and the chart; docs/reference.md
	"$(OPERATOR)" crd > crds/datjob.yaml
	"$(OPERATOR)" reference > docs/reference.md
	cp crds/datjob.yaml charts/datjob/files/datjob-crd.yaml

.PHONY: cluster-binary
cluster-binary: prerequisites ## Kubernetes, kubectl and helm in one binary
	@e2e/cluster/build.sh "$(BIN)"

.PHONY: plugin
plugin: libtorch ## the CUDA plugin; needs no GPU
	@scripts/cuda-headers.sh "$(CACHE)/cuda-13.0"
	@scripts/cuda-plugin.sh "$(LIBTORCH)" "$(CACHE)/cuda-13.0" "$(PLUGIN)"

.PHONY: libtorch
libtorch: prerequisites ## libtorch, and the settings that plain cargo and rust-analyzer need
	@scripts/libtorch.sh "$(LIBTORCH)"
	@scripts/cargo-config.sh "$(LIBTORCH)" "$(CARGO_TARGET_DIR)"

.PHONY: prerequisites
prerequisites:
	@scripts/prerequisites.sh

.PHONY: clean
clean: ## end the cluster of this machine and all that it left; caches stay (remove $(CACHE) for those)
	@if [ -x "$(CLUSTER)" ]; then "$(CLUSTER)" down; fi
