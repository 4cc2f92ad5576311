# `make` builds the static binaries into bin/. `make help` lists the rest.
#
# Every target installs or fetches what it needs and the machine lacks: packages
# through apt-get, Go and containerd from the Go module proxy, into a cache
# outside the checkout (build/env.sh). Nothing is fetched that is there already.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL: # the tests share two cores and their timings matter; go builds in parallel by itself
.SUFFIXES:
.DEFAULT_GOAL := build

# env puts a Go that is new enough into PATH and defines need_all, say and die.
env := . build/env.sh
peers := build/peers.sh

# What the tests run, as PROGRAM:PACKAGE.
runtime_packages := runc:runc busybox:busybox-static
test_packages := $(runtime_packages) containerd:containerd gcc:gcc /usr/include/stdio.h:libc6-dev \
	crun:crun strace:strace lsof:lsof ps:procps unshare:util-linux ip:iproute2

# The containerd that is built to test against, beside the system's, and those
# that are built only to compare with.
CONTAINERD := containerd-2.4.2
OTHERS := containerd-1.7.35 runc-1.5.2

# Packages whose tests the race detector cannot run; they are tested without.
# (None: it needs cgo and gcc only, and those are installed.)
NORACE ?=

COMMANDS := ./cmd/containerd-shim-lark-v2 ./cmd/lark
GO_BUILD = CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w $$(build/version.sh)"

# What cross builds for, and the few that a short look is content with: another
# 64 bits and 32 bits. Cold, each takes half a minute of two cores.
CROSS ?= amd64 arm64 386 arm riscv64 s390x ppc64le
CROSS_SHORT := amd64 arm64 386

BINDIR = $(DESTDIR)$(or $(PREFIX),/usr/local)/bin

STORM_CONTAINERS ?= 500
SOAK_SECONDS ?= 600
CROWD ?= 600 60 2
MUTANTS ?= lifecycle internal/outbox internal/bundle internal/oci
FUZZ_SECONDS ?= 30
SEEDS ?= 100000
FROM ?= 1
TEST_TIMEOUT ?= 45m

.PHONY: build
build: ## build bin/containerd-shim-lark-v2 and bin/lark, static (the default)
	@$(env)
	$(GO_BUILD) -o bin/ $(COMMANDS)

.PHONY: cross
cross: ## build for CROSS="amd64 arm64 386 arm riscv64 s390x ppc64le", into bin/ARCH
	@$(env)
	for arch in $(CROSS); do echo $$arch; GOARCH=$$arch $(GO_BUILD) -o bin/$$arch/ $(COMMANDS); done

.PHONY: cross-short
cross-short: # what would most likely break
	@$(MAKE) --no-print-directory cross CROSS="$(CROSS_SHORT)"

.PHONY: install
install: ## put what `make build` has built into PREFIX/bin (PREFIX=/usr/local), each program whole at every moment
	@build/install.sh install "$(BINDIR)"

.PHONY: uninstall
uninstall: ## take the programs out of PREFIX/bin again
	@build/install.sh uninstall "$(BINDIR)"

rootfs: build/rootfs.sh
	@$(env)
	need_all $(runtime_packages)
	build/rootfs.sh rootfs

.PHONY: demo
demo: build rootfs ## run a container and 100 execs at once, and check the order of their events
	@bin/lark run --rootfs rootfs --execs 100 -- sleep 600

.PHONY: lint
lint: ## gofmt and go vet, of both modules
	@$(env)
	build/lint.sh

.PHONY: test
test: ## everything that must hold, about 20 minutes on two cores; PARTS="unit e2e" for some of it
	@MAKE="$(MAKE)" build/test.sh $(PARTS)

.PHONY: unit
unit: packages ## the main module's tests, with the race detector
	@$(env)
	build/unit.sh $(TEST_TIMEOUT) $(NORACE)

.PHONY: sim
sim: packages ## the simulation of the shell with SEEDS=100000 seeds, from FROM=1 on
	@$(env)
	CGO_ENABLED=0 go test -count=1 -timeout 24h -v -run '^TestSimulation' ./internal/task -sim.seeds=$(SEEDS) -sim.from=$(FROM) | grep -v '^=== '

.PHONY: e2e
e2e: build peers ## the tests against a real containerd: the system's (1.6 on Debian 12) and 2.4
	@$(env)
	build/e2e.sh $(TEST_TIMEOUT)

.PHONY: storm
storm: build peers ## storms of STORM_CONTAINERS=500 under each containerd
	@$(env)
	build/storm.sh $(STORM_CONTAINERS) 0

.PHONY: crowd
crowd: build rootfs ## 600 execs at once, and 60 with a runtime that serialises them, 2 s each: all must succeed
	@$(env)
	build/crowd.sh $(CROWD)

.PHONY: soak
soak: build peers ## waves of containers for SOAK_SECONDS=600 while containerd and shims are killed; nothing may be lost, left or grow
	@$(env)
	build/soak.sh $(SOAK_SECONDS)

.PHONY: bench-execs
bench-execs: build peers ## 100 execs at once: lark's shim against containerd's own, under both containerds
	@$(env)
	cd e2e
	go run ./execbench $(BENCH_EXECS)

.PHONY: bench
bench: build stub packages peers others ## lark bench: lark's shim beside containerd's 2.4, 1.7 and the system's, twenty minutes; BENCH="--quick --rounds 1"
	@$(env)
	bin/lark bench --runtime bin/lark-stub-runtime --runtime runc="$$LARK_CACHE/runc-1.5.2/runc" --runtime crun --shim lark-v2=bin/containerd-shim-lark-v2 \
		--shim upstream-2.4="$$LARK_CACHE/$(CONTAINERD)/containerd-shim-runc-v2" \
		--shim upstream-1.7="$$LARK_CACHE/containerd-1.7.35/containerd-shim-runc-v2" \
		--shim upstream-1.6="$$(command -v containerd-shim-runc-v2)" \
		--against upstream-2.4 --targets --json bench.json --html bench.html --markdown bench.md \
		--plot exec.wall.runc=bench-wall.svg --plot exec.cpu.stub=bench-cpu.svg $(BENCH)

# The stub is entered without Go's runtime, whose start would cost more than what is
# to be measured.
.PHONY: stub
stub:
	@$(env)
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -E main.entry' -o bin/ ./cmd/lark-stub-runtime

.PHONY: bench-go
bench-go: packages ## the Go benchmarks
	@$(env)
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ_SECONDS=30
	@$(env)
	build/fuzz.sh $(FUZZ_SECONDS)

.PHONY: fuzz-short
fuzz-short: # a look at every fuzz target; the seeds are unit tests besides
	@$(env)
	build/fuzz.sh 1

.PHONY: mutants
mutants: packages ## change every condition of the pure and small packages, one at a time, and see which change no test notices
	@$(env)
	build/mutants.sh $(MUTANTS)

.PHONY: conformance
conformance: build packages ## containerd's own integration tests, Docker and CRI, over lark
	@$(env)
	need_all dockerd:docker.io
	cd e2e
	go run ./conformance -shim ../bin/containerd-shim-lark-v2 $(CONFORMANCE)

.PHONY: packages
packages: # what the tests need of the system's packages
	@$(env)
	need_all $(test_packages)

.PHONY: peers
peers: packages # the containerd that is built to test against
	@$(peers) $(CONTAINERD) >/dev/null

.PHONY: others
others: packages # further versions, for comparisons
	@$(peers) $(OTHERS) >/dev/null

.PHONY: clean
clean: ## remove what was built here; the cache outside the checkout stays
	@rm -rf bin rootfs

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "%-12s %s\n", $$1, $$2}'
