# Everything a checkout needs: Rust, and Python 3 for the checks against stock ONNX Runtime.
.PHONY: demo test check bench

FPXINT = target/debug/fpxint
VENV = .venv/ready

# Expands and evaluates the embedded network.
demo:
	cargo build --workspace
	$(FPXINT) demo

# All tests; with FPXINT_ASSETS set also those on real models. Then the files we write, in stock ONNX Runtime.
test: $(VENV)
	cargo test --workspace
	cargo build --workspace --examples
	.venv/bin/python tests/ort/raise_cases.py target/debug/examples/raise
	.venv/bin/python tests/ort/fuse_cases.py target/debug/examples/fuse
	.venv/bin/python tests/ort/artefacts.py $(FPXINT)

# What a change must pass: format, lints, tests with every kernel this CPU has, documentation.
check: test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	for kernel in $$($(FPXINT) --version | sed 's/.*: //; s/)//; s/,//g'); do \
	    FPXINT_KERNEL=$$kernel cargo test --workspace --lib --test bits || exit 1; done
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Throughput of the kernels, and of matrix products against ONNX Runtime; with MODELS="a.onnx b.onnx" also whole networks against
# ONNX Runtime and OpenVINO. Tables go into docs/benchmarks.md. Leave the machine alone meanwhile.
bench:
	cargo bench -p fpxint-kernels --bench products
	cargo build --release -p fpxint-kernels --example gemm
	python3 -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	.venv-bench/bin/python bench/gemm.py target/release/examples/gemm docs/benchmarks.md
ifdef MODELS
	cargo build --release --workspace --bins
	.venv-bench/bin/python bench/versus.py target/release/fpxint docs/benchmarks.md $(MODELS)
	.venv-bench/bin/python bench/encoders.py target/release/fpxint docs/benchmarks.md $(MODELS)
endif

$(VENV): tests/ort/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/ort/requirements.txt
	touch $@
