# Everything a checkout needs: Rust, and Python 3 for the checks against stock ONNX Runtime.
.PHONY: demo test test-mpi test-python check fuzz bench accuracy

FPXINT = target/debug/fpxint
VENV = .venv/ready
# With what runs under mpirun. All tests are built so, once: other features would compile tract again.
MPI = --workspace --features fpxint-mpi/mpi

# Expands and evaluates the embedded network.
demo:
	cargo build --workspace
	$(FPXINT) demo

# All tests; with FPXINT_ASSETS set also those on real models. Then the files we write, in stock ONNX Runtime.
test: $(VENV)
	tests/mpi/install.sh
	cargo test $(MPI)
	cargo build $(MPI) --bins --examples
	.venv/bin/python tests/ort/raise_cases.py target/debug/examples/raise
	.venv/bin/python tests/ort/fuse_cases.py target/debug/examples/fuse
	.venv/bin/python tests/ort/artefacts.py $(FPXINT)
	$(MAKE) test-python BUILD="$(MPI)"

# The processes of mpirun, which is installed first where that is possible.
test-mpi:
	tests/mpi/install.sh
	cargo build $(MPI) --bins
	cargo test $(MPI) --test mpirun

# The Python package: its wheel, built by the dev profile, in a fresh environment with stock ONNX Runtime.
BUILD = --workspace
test-python:
	cargo build $(BUILD) --bins
	python3 -m venv --clear .venv-python
	.venv-python/bin/pip install --quiet --disable-pip-version-check "maturin>=1.9,<2"
	rm -rf target/wheels
	cd bindings/python && CARGO_TARGET_DIR=$(CURDIR)/target ../../.venv-python/bin/maturin build --profile dev --out ../../target/wheels
	.venv-python/bin/pip install --quiet --disable-pip-version-check "$$(ls target/wheels/*.whl)[test]"
	.venv-python/bin/python -m mypy --config-file bindings/python/pyproject.toml bindings/python/python
	FPXINT_PROGRAM=$(CURDIR)/$(FPXINT) .venv-python/bin/python -m pytest -c bindings/python/pyproject.toml bindings/python/tests

# What a change must pass: format, lints, tests with every kernel this CPU has, documentation, licences of what is used.
check: test
	cargo fmt --all --check
	cargo clippy $(MPI) --all-targets -- -D warnings
	cd bindings/python && cargo fmt --check && CARGO_TARGET_DIR=$(CURDIR)/target cargo clippy -- -D warnings
	python3 tests/licences.py Cargo.toml bindings/python/Cargo.toml
	for kernel in $$($(FPXINT) --version | sed 's/.*: //; s/)//; s/,//g'); do \
	    FPXINT_KERNEL=$$kernel cargo test $(MPI) --lib --test bits || exit 1; done
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Mutations of the fuzz corpus for SECONDS a target; one process, one target after another.
SECONDS = 200
fuzz:
	FPXINT_FUZZ_SECONDS=$(SECONDS) cargo test --workspace --test fuzz -- --test-threads 1 --nocapture

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

# Accuracy beside ONNX Runtime's quantisers, into docs/accuracy.md; the folder ASSETS is described in bench/accuracy.py.
accuracy:
	cargo build --release --workspace --bins
	python3 -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	.venv-bench/bin/python bench/accuracy.py target/release/fpxint docs/accuracy.md $(ASSETS)

$(VENV): tests/ort/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/ort/requirements.txt
	touch $@
