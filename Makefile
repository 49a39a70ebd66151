# The commands of this house; `make` alone lists them. The longer parts are scripts in .ci/.
# Binaries are looked for where cargo puts them: CARGO_TARGET_DIR, or target/.

SHELL := bash
BIN   := $(or $(CARGO_TARGET_DIR),target)/debug
STEP  := .ci/step

.DEFAULT_GOAL := help
# Cargo uses all cores by itself; two cargos at once would only wait for one lock.
.NOTPARALLEL:
.PHONY: help build demo smoke nodes-test page-test page-screens test lint format clippy docs deny bench cli-bench restart-bench rules-check clean-demo install standins-static

help: ## Lists these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Builds every package (dev profile)
	@$(STEP) "build" cargo build --workspace --locked

demo: build ## Starts an aggregator, an agent, two workers and stand-ins on loopback; Ctrl-C ends all
	@$(BIN)/diarwatch-standins demo

smoke: build ## Kills a worker and cuts the link for 5 s without a person; exits 1 if anything was lost
	@echo "==> smoke"
	@$(BIN)/diarwatch-standins smoke

nodes-test: build standins-static ## Checks in real systemd nodes and a real Docker Engine; wants root (ALLOW_SKIP=1: or skips)
	@.ci/nodes-test

page-test: build ## Checks the page in a headless Chromium: numbers, live, languages, keyboard, bytes
	@cargo test --quiet --locked --package diarwatch --test page -- check

page-screens: build ## Takes the pictures of the page that stand in docs/
	@cargo test --quiet --locked --package diarwatch --test page -- screens docs

test: install lint ## Installs what the tests need, then runs all of them: the one gate
	@$(STEP) "tests" .ci/tests
	@$(MAKE) --no-print-directory docs deny rules-check smoke page-test
	@ALLOW_SKIP=1 $(MAKE) --no-print-directory nodes-test

lint: format clippy ## Checks the format and clippy

format:
	@$(STEP) "format" cargo fmt --all --check

clippy:
	@$(STEP) "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings

docs: ## Builds the documentation; a broken link fails
	@RUSTDOCFLAGS="-D warnings" $(STEP) "docs" cargo doc --workspace --no-deps --locked

deny: ## Licences, sources, bans and known advisories of every dependency
	@$(STEP) "deny" .ci/deny

bench: ## Runs the benches in benches/, or says that there is none yet
	@.ci/bench

cli-bench: ## How long `diarwatch status` takes, from the start of its process to its end
	@$(STEP) "bench cli" cargo bench --locked -p diarwatch-agent --bench cli

restart-bench: ## From kill -9 to the new process, beside supervisord and systemd's own; wants root
	@$(STEP) "bench restart" cargo bench --locked -p diarwatch-agent --bench restart

rules-check: build ## Runs `rules check` on the shipped rule files and on the requirements' own
	@$(STEP) "rules-check" .ci/rules-check $(BIN)/diarwatch-aggregator

# Static against glibc: it needs nothing that a build does not have already. Names are not looked up
# by such a binary; the stand-ins are told addresses.
standins-static: ## Builds the stand-ins as one static file for an empty container: target/static/
	@$(STEP) "standins static" .ci/standins-static

clean-demo: ## Removes what a demo left behind
	@rm -rf demo $(or $(CARGO_TARGET_DIR),target)/demo

install:
	@$(STEP) "install" .ci/install
