# Each target installs and builds its prerequisites. Requires Debian 12, root, Rust and Go.
# Caches are outside the checkout; set CACHE=/somewhere/else to move them.

VERSION := 0.1.0
CACHE ?= $(HOME)/.cache/datjob
BIN := $(CACHE)/bin
IMAGES := $(CACHE)/images
export LIBTORCH := $(CACHE)/libtorch-2.11.0
# A folder for each checkout: cargo detects changes by time, and would otherwise reuse the build of another checkout.
export CARGO_TARGET_DIR ?= $(CACHE)/target/$(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)
export DATJOB_CACHE := $(CACHE)

# One set of packages for programs and tests: cargo unifies features within a set, and compiles a dependency again for other
# features. There are no examples, but `--examples` makes cargo include the features of tests.
PACKAGES := --workspace --exclude datjob-fuzz --exclude datjob-e2e
TORCHLESS := -p datjob-operator -p datjob-api -p datjob-data -p datjob-scale
BUILD := cargo build --release $(PACKAGES) --exclude datjob-scale --bins --examples
FUZZ_SECONDS ?= 60
CHAOS_MINUTES ?= 15
CHAOS_SEED ?=
SEED ?= 0
SHARD ?= 0
SIZES ?= 100,1000,5000
SHELL_SCRIPTS := .ci/run scripts/*.sh e2e/cluster/*.sh
OPERATOR := $(CARGO_TARGET_DIR)/release/datjob-operator
SCALE := $(CARGO_TARGET_DIR)/release/datjob-scale
TRAINER := $(CARGO_TARGET_DIR)/release/dat-trainer
PLUGIN := $(CACHE)/lib/libdatjob_cuda.so
GPU_BUNDLE := $(CACHE)/gpu-bundle
CUDA_LIBRARIES := $(CACHE)/cuda-libraries-13.0
CLUSTER := $(BIN)/cluster

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: images ## run a DatJob on a Kubernetes on this machine (or KUBECONFIG=…, REGISTRY=…) and print its robust accuracy
	@scripts/demo.sh "$(CLUSTER)" "$(IMAGES)"

.PHONY: test
test: lint unit chart ## run all tests, including those on a real cluster
	@# The fuzz targets build while the end-to-end tests wait for their cluster.
	@$(MAKE) --no-print-directory -j 2 fuzz-seeds e2e
	@echo "make test: all passed"

.PHONY: check
check: prerequisites ## lint and test operator, API, data and the benchmark; needs neither libtorch nor a cluster
	cargo fmt --all --check
	scripts/module-cycles.py */src e2e/*/src trainer/*/src
	shellcheck $(SHELL_SCRIPTS)
	cargo clippy --release $(TORCHLESS) --all-targets -- -D warnings
	cargo test --release $(TORCHLESS)

.PHONY: lint
lint: prerequisites libtorch ## check formatting, module cycles, shell scripts, clippy, rustdoc, go vet
	cargo fmt --all --check
	scripts/module-cycles.py */src e2e/*/src trainer/*/src
	shellcheck $(SHELL_SCRIPTS)
	cargo clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps $(PACKAGES)
	e2e/cluster/go.sh vet ./...

.PHONY: staticcheck
staticcheck: prerequisites ## staticcheck of e2e/cluster; not in make lint, because it also analyses all of Kubernetes
	nice e2e/cluster/go.sh run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

.PHONY: unit
unit: prerequisites libtorch plugin ## run the tests that need no cluster
	cargo test --release $(PACKAGES)
	e2e/cluster/go.sh test ./...

.PHONY: chaos
chaos: prerequisites libtorch ## hangs, and random faults for CHAOS_MINUTES (15), against jobs of four agents; prints each fault and CHAOS_SEED
	CHAOS_MINUTES="$(CHAOS_MINUTES)" CHAOS_SEED="$(CHAOS_SEED)" cargo test --release $(PACKAGES) --test faults -- \
		--ignored --nocapture --test-threads=1

.PHONY: fuzz
fuzz: prerequisites ## fuzz every parser of untrusted input; FUZZ_SECONDS=3600 for longer runs
	@scripts/fuzz.sh "$(CACHE)/fuzz" -max_total_time=$(FUZZ_SECONDS) $(TARGETS)

.PHONY: fuzz-seeds
fuzz-seeds: prerequisites ## run the seeds of every fuzz target once; deterministic
	@scripts/fuzz.sh "$(CACHE)/fuzz-seeds" -runs=0

.PHONY: chart
chart: cluster-binary ## test the chart: lint, templates, values schema
	HELM="$(CLUSTER) helm" scripts/chart-test.sh

.PHONY: e2e
e2e: images ## run the end-to-end tests on the cluster of this machine, or on KUBECONFIG=…; GROUP=recovery runs one group
	@cargo build --release $(PACKAGES) --bins --examples
	@SCALE="$(SCALE)" scripts/e2e.sh "$(CLUSTER)" "$(IMAGES)" $(addsuffix ::,$(GROUP))

.PHONY: mutants
mutants: prerequisites libtorch ## mutation tests of attacks, objectives, optimizers, evaluation: 150 mutants in about an hour; SHARD=1, SEED=0
	cargo install --quiet --locked --version 27.1.0 --root "$(CACHE)/tools" --target-dir "$(CACHE)/target-tools" cargo-mutants
	PATH="$(CACHE)/tools/bin:$$PATH" scripts/mutants.py "$(CACHE)/mutants" \
		--seed "$(SEED)" --shard "$(SHARD)"

.PHONY: audit
audit: ## check licences, bans and sources of all dependencies (deny.toml); builds cargo-deny first
	cargo install --quiet --locked --version 0.20.2 --root "$(CACHE)/tools" --target-dir "$(CACHE)/target-tools" cargo-deny
	"$(CACHE)/tools/bin/cargo-deny" --all-features check bans licenses sources

.PHONY: bench
bench: prerequisites libtorch ## benchmark a step (against PyTorch, by method, over a slow link) and decoding (against Pillow)
	DATJOB_BENCH_PYTHON="$$(scripts/pytorch.sh "$(CACHE)/pytorch-2.11.0")" && export DATJOB_BENCH_PYTHON && cargo bench $(PACKAGES) --benches

.PHONY: bench-operator
bench-operator: cluster-binary ## benchmark the operator with many jobs, beside LeaderWorkerSet; SIZES=100, OPTIONS="--output docs/scale.md"
	@cargo build --release $(TORCHLESS) --bins --examples
	@scripts/lws.sh "$(CACHE)/lws"
	@DATJOB_SCALE_COMMAND='make bench-operator SIZES=$(SIZES) $(if $(OPTIONS),OPTIONS="$(OPTIONS)")' scripts/bench-operator.sh \
		"$(CLUSTER)" "$(OPERATOR)" "$(SCALE)" "$(CACHE)/lws" "$(CACHE)/scale" --sizes "$(SIZES)" $(OPTIONS)

.PHONY: test-gpu
test-gpu: gpu-bundle ## run the GPU tests; skipped on a machine without a GPU
	@scripts/gpu.sh test "$(GPU_BUNDLE)" "$(LIBTORCH)" "$(CUDA_LIBRARIES)"

.PHONY: bench-gpu
bench-gpu: gpu-bundle ## benchmark an adversarial step on a GPU, compared with PyTorch
	@scripts/gpu.sh bench "$(GPU_BUNDLE)" "$(LIBTORCH)" "$(CUDA_LIBRARIES)"

.PHONY: gpu-bundle
gpu-bundle: programs plugin ## package both as binaries for a machine without network or toolchain (docs/gpu.md)
	@scripts/gpu-bundle.sh "$(GPU_BUNDLE)" "$(TRAINER)" "$(PLUGIN)"

.PHONY: images
images: programs cluster-binary ## build the container images as OCI archives
	@OPERATOR_BINARY="$(OPERATOR)" TRAINER_BINARY="$(TRAINER)" TAG="$(VERSION)" scripts/images.sh "$(IMAGES)"

.PHONY: image-cuda
image-cuda: images plugin ## build the trainer's image for NVIDIA GPUs (downloads 2.4 GB)
	@scripts/cuda-libraries.sh "$(CUDA_LIBRARIES)"
	@OPERATOR_BINARY="$(OPERATOR)" TRAINER_BINARY="$(TRAINER)" TAG="$(VERSION)" CUDA_LIBRARIES="$(CUDA_LIBRARIES)" \
		CUDA_PLUGIN="$(PLUGIN)" scripts/images.sh "$(IMAGES)" trainer-cuda

.PHONY: programs
programs: prerequisites libtorch ## build the operator and trainer binaries
	@echo "==> Building the operator and the trainer (the first build takes some minutes)"
	@$(BUILD)
	@install -D "$(OPERATOR)" "$(BIN)/datjob-operator"
	@install -D "$(TRAINER)" "$(BIN)/dat-trainer"

.PHONY: trainer
trainer: prerequisites libtorch ## build only the trainer, for machines without Kubernetes
	@echo "==> Building the trainer (the first build takes some minutes)"
	@cargo build --release -p datjob-trainer
	@install -D "$(TRAINER)" "$(BIN)/dat-trainer"

.PHONY: generate
generate: prerequisites ## generate the CRD (crds/ and chart) and docs/reference.md from the types; needs no libtorch
	cargo build --release $(TORCHLESS) --bins --examples
	"$(OPERATOR)" crd > crds/datjob.yaml
	"$(OPERATOR)" reference > docs/reference.md
	cp crds/datjob.yaml charts/datjob/files/datjob-crd.yaml

.PHONY: cluster-binary
cluster-binary: prerequisites ## build Kubernetes, kubectl and helm as one binary
	@e2e/cluster/build.sh "$(BIN)"

.PHONY: plugin
plugin: libtorch ## build the CUDA plugin; needs no GPU
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
clean: ## stop the cluster of this machine and remove its files; keeps the caches (in $(CACHE))
	@if [ -x "$(CLUSTER)" ]; then "$(CLUSTER)" down; fi
