# Two commands for a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
RESULTS := benchmarks/results
MEASURED := docs/measured
BENCH = $(BIN)/sed-trt bench
# Two processes share the tests, a file at a time; more would need more memory than cores.
PYTEST = --numprocesses 2 --dist loadfile
# Draws the plots and writes every row that was measured.
REPORT = $(BENCH) report $(RESULTS) --output $(MEASURED)
# Makes the tables between the markers of these pages anew from the results files.
TABLES = $(BIN)/python -m sed_trt.benchmarks.report.pages README.md docs/performance.md

.PHONY: demo serve test test-all lint bundles-tiny results results-scores results-parity results-cpu results-latency results-serving results-report clean

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("sed-trt needs Python 3.11 or later, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	touch $@

$(VENV)/.export: $(VENV)/.base
	$(BIN)/pip install --quiet --editable '.[cpu,export]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.export $(VENV)/.serve

$(VENV)/.serve: $(VENV)/.export
	$(BIN)/pip install --quiet --editable '.[cpu,export,serve]'
	touch $@

demo: $(VENV)/.export
	$(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/bundle
	$(BIN)/sed-trt segment $(DEMO)/bundle examples --vocabulary examples/vocabulary.txt --output $(DEMO)/out --short-side 0

# Opens the page with sed-tiny, on this machine alone: http://127.0.0.1:8000 unless PORT says otherwise.
PORT := 8000
serve: $(VENV)/.serve
	test -e $(DEMO)/bundle/manifest.json || $(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/bundle
	$(BIN)/sed-trt serve $(DEMO)/bundle --examples examples --port $(PORT)

test: $(VENV)/.dev
	$(BIN)/pytest -m "not slow" $(PYTEST)

test-all: $(VENV)/.dev
	$(BIN)/pytest $(PYTEST)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@scratch=$$(mktemp -d) && ln -s "$(CURDIR)" "$$scratch/sed_trt" && cd "$$scratch" \
		&& MYPYPATH="$$scratch" "$(CURDIR)/$(BIN)/mypy" --config-file sed_trt/pyproject.toml --cache-dir "$(CURDIR)/.mypy_cache" -p sed_trt; \
		status=$$?; rm -rf "$$scratch"; exit $$status

results: results-scores results-parity
	$(TABLES)

results-scores: $(VENV)/.export
	$(BIN)/sed-trt evaluate checkpoints/sed-tiny.safetensors --scenes 100 --vocabulary-size 181 --vocabulary-size 459 --vocabulary-size 847 --output $(RESULTS)/sed-tiny.json

results-parity: bundles-tiny
	for precision in fp16 bf16 int8; do $(BIN)/sed-trt evaluate $(DEMO)/sed-tiny-$$precision --against $(DEMO)/sed-tiny-fp32 --backend onnxruntime --scenes 100 --output $(RESULTS)/sed-tiny-$$precision.json || exit; done
	$(BIN)/sed-trt evaluate checkpoints/sed-tiny.safetensors --layerwise fp16 --output $(RESULTS)/sed-tiny-fp16-islands.json

bundles-tiny: $(VENV)/.export
	for precision in fp32 fp16 bf16 int8; do $(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/sed-tiny-$$precision --precision $$precision || exit; done

# The rows of CPUs: about 40 minutes on two cores, which nothing else should use meanwhile. To rehearse it:
# make results-cpu NET=sed-tiny SIZES=20,40 KEPT=8 LARGE=60 ROUNDS=1 SCENES=1 RESULTS=/tmp/results MEASURED=/tmp/measured
NET := sed-b
SIZES := 150,847
SIZE = $(firstword $(subst $(comma), ,$(SIZES)))
LARGE := 4096
KEPT := 32
ROUNDS := 5
SCENES := 100
BACKENDS := onnxruntime,openvino
# Bundles of sed-tiny that OpenVINO runs, beside the one in FP32.
OPENVINO_PRECISIONS := bf16 int8
comma := ,
# BF16 in PyTorch takes longer than FP32 without AMX.
AMX := $(shell grep -qw amx_bf16 /proc/cpuinfo 2>/dev/null && echo yes)
with_amx = $(if $(AMX),$(comma)$(1))
KNOWN = $(DEMO)/known-$(NET)
LATENCY = $(BENCH) latency --kept $(KEPT) --repeats $(ROUNDS) --pictures 1
BESIDE = --stream 0 --checkpoint $(KNOWN).pth

results-cpu: $(VENV)/.dev bundles-tiny
	mkdir -p $(DEMO) $(RESULTS)
	for precision in $(OPENVINO_PRECISIONS); do $(BIN)/sed-trt evaluate $(DEMO)/sed-tiny-$$precision --against $(DEMO)/sed-tiny-fp32 --backend openvino --scenes $(SCENES) --output $(RESULTS)/sed-tiny-$$precision-openvino.json || exit; done
	$(BIN)/python -m sed_trt.benchmarks.known_weights $(KNOWN).pth $(NET)
	for precision in fp32 bf16 int8; do $(BIN)/sed-trt export $(KNOWN).pth --output $(KNOWN)-$$precision --precision $$precision || exit; done
	$(LATENCY) $(KNOWN)-fp32 $(KNOWN)-bf16 $(KNOWN)-int8 --backend $(BACKENDS) $(BESIDE) --vocabulary-size $(SIZES) --against published$(call with_amx,published-autocast-bf16) --output $(RESULTS)/latency-$(NET)-32.json
	$(LATENCY) $(KNOWN)-fp32 $(KNOWN)-bf16 $(BESIDE) --no-alone --vocabulary-size $(SIZES) --against published,published-compiled$(call with_amx,published-compiled-bf16) --output $(RESULTS)/latency-$(NET)-compiled.json
# Each library's graph takes gigabytes, so they do not share a process; with 847 categories more than most have.
	$(LATENCY) $(KNOWN)-fp32 $(KNOWN)-bf16 $(BESIDE) --no-alone --vocabulary-size $(SIZE) --against published,monolithic --output $(RESULTS)/latency-$(NET)-graph.json
	$(LATENCY) $(KNOWN)-fp32 $(KNOWN)-bf16 $(BESIDE) --no-alone --vocabulary-size $(SIZE) --against published,monolithic-openvino$(call with_amx,monolithic-openvino-bf16) --output $(RESULTS)/latency-$(NET)-graph-openvino.json
# With $(LARGE) categories a bundle takes gigabytes too.
	for precision in fp32 bf16 int8; do $(LATENCY) $(KNOWN)-$$precision --no-alone --vocabulary-size $(SIZE) --against none --stream 4 --images-at-once 2 --growth $(SIZE),$(LARGE) --output $(RESULTS)/latency-$(NET)-stream-$$precision.json || exit; done
	$(BENCH) profile $(KNOWN)-fp32 --output $(RESULTS)/profile-$(NET).json
	$(BENCH) profile $(KNOWN)-fp32 --categories 847 --output $(RESULTS)/profile-$(NET)-847.json
	$(BENCH) profile $(KNOWN)-bf16 --backend openvino --output $(RESULTS)/profile-$(NET)-bf16.json
	$(BENCH) profile $(KNOWN)-bf16 --backend openvino --categories 847 --output $(RESULTS)/profile-$(NET)-bf16-847.json
	$(REPORT)
	$(TABLES)

# What `results-cpu` leaves out: other vocabularies and kept counts, sed-tiny, policies, floors of GPUs.
results-latency: results-cpu
	$(BENCH) latency $(KNOWN)-fp32 $(BESIDE) --backend onnxruntime --kept 16,64,128,all --all-up-to 150 --repeats 5 --pictures 1 --no-alone --against published --output $(RESULTS)/latency-sed-b.json
	$(BENCH) latency $(DEMO)/sed-tiny-fp32 --backend onnxruntime --checkpoint checkpoints/sed-tiny.safetensors --kept all,real --against published,monolithic --repeats 4 --no-alone --output $(RESULTS)/latency-sed-tiny.json
	$(BENCH) sweep $(DEMO)/sed-tiny-fp32 --backend onnxruntime --scenes 100 --output $(RESULTS)/sweep-sed-tiny.json
	$(BENCH) roofline --preset sed-b --categories 150 --kept 32 --output $(RESULTS)/roofline-sed-b.json
	$(REPORT)
	$(TABLES)

# Loads the server of `make serve`, which runs in another terminal; nothing else should use the machine.
results-serving: $(VENV)/.dev
	$(BENCH) serve http://127.0.0.1:$(PORT) --clients 1,4,32 --rate 0.5x,4x --requests 500 --output $(RESULTS)/serving-sed-tiny.json

results-report: $(VENV)/.dev
	$(REPORT)
	$(TABLES)

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache
