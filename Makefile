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
	.venv/bin/python tests/ort/artefacts.py $(FPXINT)

# What a change must pass: format, lints, tests with every kernel this CPU has, documentation.
check: test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	for kernel in $$($(FPXINT) --version | sed 's/.*: //; s/)//; s/,//g'); do \
	    FPXINT_KERNEL=$$kernel cargo test --workspace --lib --test bits || exit 1; done
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Throughput of the kernels; see README for whole models.
bench:
	cargo bench -p fpxint-kernels --bench products

$(VENV): tests/ort/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/ort/requirements.txt
	touch $@
