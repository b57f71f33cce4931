# Two of these do all the set-up on a machine that has Rust and apt: `make demo` and `make test`.
# What is missing is named, then fetched into .tools/ by tools/fetch; nothing is installed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Written by tools/fetch: PATH, and PROTOC where the build needs it.
ENV := . .tools/env &&

.PHONY: help demo test test-postgres fuzz model simulate soak soak-databases planted drivers suites bench bench-handoff build reproduce sbom check tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: ## the whole story in ten seconds, in one process, on the embedded coordinator
	@tools/fetch protoc
	@$(ENV) $(CARGO) run --locked -q -- demo

test: ## fetches what building and testing need, then runs every test
	@tools/fetch
	@$(ENV) $(CARGO) test --locked
	@$(ENV) $(CARGO) test --locked --features danger-test-switches --test mechanisms --test crashes --test chaos --test chaos_databases
	@$(ENV) $(CARGO) test --locked --profile simulation --features danger-test-switches --test model --test cost
	@$(ENV) EPOCHGATE_SEEDS=500 $(CARGO) test --locked --profile simulation --features danger-test-switches --test simulation every_seed

VERSION ?= 18

test-postgres: ## the tests of PostgreSQL's sessions and of the proof, with another server than Debian's: VERSION=18, 17, 16 or 14
	@tools/fetch
	@tools/fetch postgres-$(VERSION)
	@$(ENV) EPOCHGATE_POSTGRES=$(VERSION) $(CARGO) test --locked --test postgres --test target

MINUTES ?= 30
LANES ?= 3

soak: ## real processes under real faults for MINUTES=30, in LANES=3 places at a time
	@tools/fetch
	@$(ENV) MINUTES=$(MINUTES) LANES=$(LANES) $(CARGO) test --locked --features danger-test-switches --test chaos soak -- --exact --ignored --nocapture

soak-databases: ## PostgreSQL, Redis and MariaDB under real faults for MINUTES=30
	@tools/fetch
	@$(ENV) MINUTES=$(MINUTES) $(CARGO) test --locked --features danger-test-switches --test chaos_databases soak -- --exact --ignored --nocapture

FUZZ ?= 60s
fuzz: ## FUZZ=60s for every parser of what others wrote; `make test` has a short run of each
	@tools/fetch protoc
	@$(ENV) EPOCHGATE_FUZZ=$(FUZZ) $(CARGO) test --locked --profile fuzz --lib -- --nocapture fuzz::

planted: ## plants bugs in a copy of the tree and sees that a test finds each: an hour or two (BUGS="name name", TESTS="lib crashes": only those; TESTS=simulation: by which of its first 1000 seeds)
	@tools/fetch
	@$(ENV) PLANTED_ONLY="$(BUGS)" PLANTED_TESTS="$(TESTS)" $(CARGO) test --locked --test planted -- --ignored --nocapture

drivers: ## what common drivers of PostgreSQL and Redis do at a failover; needs python3, node, and maven for JDBC (NAMES="asyncpg jdbc": only these)
	@tools/fetch
	@$(ENV) $(CARGO) build --locked
	@BINARY="$(TARGET)/debug/epochgate" tests/drivers/run.sh $(NAMES)

SOURCES ?=
OUT ?= $(TARGET)/suites

suites: ## servers' and clients' own test suites, direct and through stamp and guard: SOURCES=folder has them (docs/databases-suites.md); NAMES="redis asyncpg": only these; WAYS="direct through failovers"; OUT=folder for what they said
	@[[ -n "$(SOURCES)" ]] || { echo "SOURCES=folder is missing: docs/databases-suites.md says what has to be in it"; exit 2; }
	@tools/fetch
	@$(ENV) $(CARGO) build --locked --release
	@BINARY="$${BINARY:-$(TARGET)/release/epochgate}" WAYS="$(WAYS)" tests/suites/run.sh "$(SOURCES)" "$(OUT)" $(NAMES)

model: ## the larger worlds of the model too, and the shortest run to each violation: half an hour
	@tools/fetch protoc
	@$(ENV) EPOCHGATE_MODEL=whole $(CARGO) test --locked --profile simulation --features danger-test-switches --test model -- --nocapture --test-threads 1

SEEDS ?= 500
SEED ?=

simulate: ## SEEDS=500 simulated worlds with ten failovers each; SEED=n shows one of them with all that happened
	@tools/fetch protoc
	@$(ENV) EPOCHGATE_SEEDS=$(SEEDS) EPOCHGATE_SEED=$(SEED) $(CARGO) test --locked --profile simulation --features danger-test-switches --test simulation -- --nocapture every_seed

# What a run of `make bench` measures with, where it can be had; what is missing is left out of its tables.
BENCH_TOOLS := nginx haproxy envoy h2load valgrind strace etcd \
  postgres initdb psql pgbench pgbouncer redis-server redis-cli redis-benchmark
REPEAT ?= 4
WINDOW ?= 1
ONLY ?=
SVG ?=
PAGE ?=
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

bench: ## beside nginx, HAProxy and Envoy: REPEAT=4 times WINDOW=1 seconds each; ONLY="http1 idle": only those parts; SVG=file, PAGE=file: a picture, and the tables in a page
	@tools/fetch protoc
	@for tool in $(BENCH_TOOLS); do tools/fetch $$tool || echo "$$tool: left out" >&2; done
	@$(ENV) $(CARGO) build --locked --release
	@# `cargo bench` puts a binary of its own profile in the same place.
	@cp --remove-destination "$(TARGET)/release/epochgate" "$(TARGET)/release/measured"
	@$(ENV) EPOCHGATE_BUILD_WITHOUT_GATE="make bench" $(CARGO) build --locked --profile ungated --features bench-without-gate
	@$(ENV) EPOCHGATE_TESTED="$${EPOCHGATE_TESTED:-$(TARGET)/release/measured}" \
	  EPOCHGATE_UNGATED="$(TARGET)/ungated/epochgate" \
	  EPOCHGATE_BENCH_REPEAT="$(REPEAT)" EPOCHGATE_BENCH_WINDOW="$(WINDOW)" EPOCHGATE_BENCH_ONLY="$(ONLY)" \
	  EPOCHGATE_BENCH_SVG="$(SVG)" EPOCHGATE_BENCH_PAGE="$(PAGE)" \
	  $(CARGO) bench --locked --bench compare

bench-handoff: ## how long a handoff takes, beside a bare etcd transaction and a sync; with something open at PostgreSQL. ONLY=http, ONLY=postgres: one of the two
	@tools/fetch protoc etcd postgres initdb psql
	@$(ENV) EPOCHGATE_BENCH_ONLY="$(ONLY)" $(CARGO) bench --locked --bench handoff

build: ## the release binary, in target/release
	@tools/fetch protoc
	@$(ENV) $(CARGO) build --locked --release

reproduce: ## the release binary, twice in two folders, and whether both are the same to the byte
	@tools/fetch protoc
	@$(ENV) tools/reproduce

sbom: ## what is in the binary, as CycloneDX, in target/epochgate.cdx.json
	@tools/fetch cargo-cyclonedx
	@$(ENV) tools/sbom

check: ## formatting, lints, licences, advisories, duplicates
	@tools/fetch protoc cargo-deny
	@$(ENV) $(CARGO) fmt --check
	@$(ENV) $(CARGO) clippy --locked --all-targets -- -D warnings
	@$(ENV) $(CARGO) clippy --locked --all-targets --features danger-test-switches -- -D warnings
	@$(ENV) tools/deny

tools: ## finds or fetches every tool, and says where each is
	@tools/fetch
	@tools/fetch cargo-deny
