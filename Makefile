# Two commands for a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
RESULTS := benchmarks/results
BENCH = $(BIN)/sed-trt bench
# Two processes share the tests, a file at a time; more would need more memory than cores.
PYTEST = --numprocesses 2 --dist loadfile
# Makes the tables between the markers of these pages anew from the results files.
TABLES = $(BIN)/python -m sed_trt.benchmarks.report.pages README.md docs/performance.md

.PHONY: demo test test-all lint results results-scores results-parity results-latency results-report clean

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
	touch $@ $(VENV)/.export

demo: $(VENV)/.export
	$(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/bundle
	$(BIN)/sed-trt segment $(DEMO)/bundle examples --vocabulary examples/vocabulary.txt --output $(DEMO)/out --short-side 0

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

results-parity: $(VENV)/.export
	for precision in fp32 fp16 bf16 int8; do $(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/sed-tiny-$$precision --precision $$precision || exit; done
	for precision in fp16 bf16 int8; do $(BIN)/sed-trt evaluate $(DEMO)/sed-tiny-$$precision --against $(DEMO)/sed-tiny-fp32 --scenes 100 --output $(RESULTS)/sed-tiny-$$precision.json || exit; done
	$(BIN)/sed-trt evaluate checkpoints/sed-tiny.safetensors --layerwise fp16 --output $(RESULTS)/sed-tiny-fp16-islands.json

# About an hour on two cores, which nothing else should use meanwhile.
results-latency: SED_B = --backend onnxruntime --checkpoint $(DEMO)/sed-b.pth --against published --pictures 1
results-latency: $(VENV)/.dev
	mkdir -p $(DEMO)
	$(BIN)/python -m sed_trt.benchmarks.known_weights $(DEMO)/sed-b.pth sed-b
	$(BIN)/sed-trt export $(DEMO)/sed-b.pth --output $(DEMO)/sed-b
	$(BIN)/sed-trt export $(DEMO)/sed-b.pth --output $(DEMO)/sed-b-int8 --precision int8
	$(BIN)/sed-trt export checkpoints/sed-tiny.safetensors --output $(DEMO)/sed-tiny-fp32
	$(BENCH) latency $(DEMO)/sed-b $(SED_B) --vocabulary-size 150,847 --kept 32 --repeats 7 --stream 0 --output $(RESULTS)/latency-sed-b-32.json
	$(BENCH) latency $(DEMO)/sed-b $(SED_B) --kept 16,32,64,128,all --all-up-to 150 --repeats 5 --stream 4 --output $(RESULTS)/latency-sed-b.json
	$(BENCH) latency $(DEMO)/sed-b-int8 $(SED_B) --vocabulary-size 150 --kept 32 --repeats 5 --stream 4 --output $(RESULTS)/latency-sed-b-int8.json
	$(BENCH) latency $(DEMO)/sed-b --backend onnxruntime --vocabulary-size 150,4096 --kept 32 --repeats 5 --stream 0 --pictures 1 --output $(RESULTS)/latency-sed-b-4096.json
	$(BENCH) latency $(DEMO)/sed-tiny-fp32 --backend onnxruntime --checkpoint checkpoints/sed-tiny.safetensors --kept all,real --against published,monolithic --repeats 4 --no-alone --output $(RESULTS)/latency-sed-tiny.json
	$(BENCH) sweep $(DEMO)/sed-tiny-fp32 --backend onnxruntime --scenes 100 --output $(RESULTS)/sweep-sed-tiny.json
	$(BENCH) profile $(DEMO)/sed-b --output $(RESULTS)/profile-sed-b.json
	$(BENCH) profile $(DEMO)/sed-b --categories 847 --output $(RESULTS)/profile-sed-b-847.json
	$(BENCH) roofline --preset sed-b --categories 150 --kept 32 --output $(RESULTS)/roofline-sed-b.json
	$(MAKE) results-report

results-report: $(VENV)/.dev
	$(BENCH) report $(RESULTS) --output docs/measured
	$(TABLES)

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache
