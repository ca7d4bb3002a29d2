# The contributor's manual: every verb says what it is for, `make` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

LOGBENCH := benches/logbench/Cargo.toml
FUZZ := fuzz/Cargo.toml
# For each fuzz target; nine targets stay below eight minutes.
FUZZ_SECONDS ?= 50
DENY_VERSION := 0.20.2
DENY := $(or $(shell command -v cargo-deny),target/tools/bin/cargo-deny)

.PHONY: help demo check test soak bench fuzz image sbom render fmt clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## A make-believe node on this machine: three services, their traces, an objective that burns, a page
	@cargo run --locked --quiet --bin nodewick -- demo $(ARGS)

check: $(DENY) ## Format, lints, rendered files, licences and bans; half a minute after a build
	cargo fmt --check
	cargo fmt --check --manifest-path $(LOGBENCH)
	cargo fmt --check --manifest-path $(FUZZ)
	cargo clippy --all-targets --locked --quiet -- -D warnings
	@if [ -e tests/render.rs ]; then cargo test --locked --quiet --test render; fi
	$(DENY) --locked --log-level error check bans licenses sources

test: ## Everything that can be tested here; brings in what it needs
	@.ci/tools
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --locked --no-fail-fast </dev/null; \
	else \
	  cargo test --locked --no-fail-fast </dev/null | awk '{ print; fflush() } \
	    /^test result:/ { passed += $$4; failed += $$6; skipped += $$8 } \
	    END { printf "     Summary %d tests run: %d passed, %d failed, %d skipped\n", passed + failed, passed, failed, skipped }'; \
	fi

soak: ## The fault suite at the standard load, a table of what it found (docs/explanation/faults.md); ROWS="1 3 16"
	@tests/faults/soak.py $(ROWS)

bench: ## nodewick beside a floor program: CPU, memory, latency; ARGS=scrape: metrics (docs/how-to/benchmark.md)
	@cargo test --quiet --release --locked --manifest-path $(LOGBENCH) --target-dir target/bench >/dev/null
	@benches/run.py $(ARGS)

fuzz: ## Look for inputs that break a property, FUZZ_SECONDS a target (docs/how-to/fuzz.md)
	@fuzz/run.py --seconds $(FUZZ_SECONDS) $(ARGS)

image: ## The container image, an OCI archive in target/image (docs/how-to/install.md); PROFILE=release is faster
	@deploy/image/build

sbom: ## What the image is made of: CycloneDX, target/image/sbom.cdx.json
	@mkdir -p target/image
	@deploy/image/sbom.py >target/image/sbom.cdx.json
	@echo target/image/sbom.cdx.json

render: ## Write the generated files anew: config/agent.toml, docs/reference, alerts, dashboards, runbooks, the chart's schema, the kustomize base
	@NODEWICK_RENDER=1 cargo test --locked --quiet --test render >/dev/null
	@cp deploy/daemonset.yaml deploy/kustomize/base/daemonset.yaml

fmt: ## Format the code
	cargo fmt
	cargo fmt --manifest-path $(LOGBENCH)
	cargo fmt --manifest-path $(FUZZ)

clean: ## Remove everything that was built or installed here
	cargo clean
	rm -rf tests/real/node_modules demo-state

target/tools/bin/cargo-deny:
	@echo "installing cargo-deny $(DENY_VERSION) into target/tools (minutes, once)" >&2
	cargo install --quiet --locked --version $(DENY_VERSION) --root target/tools cargo-deny
