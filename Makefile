# `make help` lists the targets. Needed: Go, make, git; everything else is built into bin/, or is a Debian
# package that the target installs when it runs as root and names when it does not.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
MAKEFLAGS += --no-print-directory

GO       ?= go
PKG      ?= ./...
RUN      ?=
FUZZTIME ?= 10s
IMAGE    ?= lvmsnap
LABFLAGS ?=

VERSION ?= $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null || echo unknown)

# The version comes from git describe. Go's own stamp would fail the build in a clone that another user owns.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

STATIC := CGO_ENABLED=0 $(GO) build -trimpath
LAB    := $(abspath bin/lab) $(LABFLAGS) --
OUTPUT := _output

# Packages with tests that need the lab: those with a file tagged so.
LAB_PKG ?= $(sort $(patsubst %/,./%,$(dir $(shell \
	grep -rlE --include='*_test.go' '^//go:build .*\blab\b' cmd pkg test 2>/dev/null))))

##@ Build

.PHONY: build
build: bin/lvmsnap ## Build the driver: bin/lvmsnap

.PHONY: tools
tools: bin/gotestsum bin/golangci-lint bin/benchstat bin/csi-sanity bin/lab ## Build all the tools into bin/ (other targets do so as they need them)

.PHONY: image
image: ## Build the container image with docker, podman or buildah: IMAGE=name:tag
	@for engine in docker podman buildah; do
	  command -v "$$engine" >/dev/null || continue
	  if ! "$$engine" info >/dev/null 2>&1; then echo "$$engine is installed, but does not answer" >&2; continue; fi
	  build=build; [[ $$engine != buildah ]] || build=bud
	  set -x
	  exec "$$engine" "$$build" --build-arg VERSION="$(VERSION)" --tag "$(IMAGE)" .
	done
	echo "make image: no working container engine; install docker, podman or buildah (apt-get install buildah)" >&2
	exit 1

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf bin $(OUTPUT)

##@ Try

.PHONY: demo
demo: bin/lvmsnap bin/lab bin/demo ## Watch a volume being snapshotted and restored in a real thin pool
	@$(LAB) bin/demo

.PHONY: lab
lab: bin/lab ## Run a shell command on the lab's machine: make lab CMD='lsblk; lvm version'
	@if [[ -z "$${CMD:-}" ]]; then echo "usage: make lab CMD='lsblk; lvm version'  (a dollar sign is written \$$\$$)" >&2; exit 2; fi
	$(LAB) sh -c "$$CMD"

##@ Test

.PHONY: test
test: ## Run every test: units with the race detector, all that needs the lab (csi-sanity too), the lab itself
	@rm -rf $(OUTPUT)/test; rc=0
	$(MAKE) test-race || rc=1
	$(MAKE) test-lab || rc=1
	$(MAKE) test-powercut || rc=1
	$(MAKE) test-lab-self || rc=1
	hack/test-summary $(OUTPUT)/test/*.json || rc=1
	exit $$rc

.PHONY: test-unit
test-unit: bin/gotestsum | $(OUTPUT)/test ## Run the unit tests, on fakes: no root, no lab [PKG=./pkg/lvm/... RUN=TestName]
	bin/gotestsum --format pkgname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/unit.json -- $(if $(RUN),-run '$(RUN)') $(PKG)

.PHONY: test-race
test-race: bin/gotestsum | $(OUTPUT)/test ## Run the unit tests with the race detector (needs gcc) [PKG= RUN=]
	@hack/need gcc=gcc /usr/include/stdlib.h=libc6-dev
	CGO_ENABLED=1 bin/gotestsum --format pkgname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/race.json -- -race $(if $(RUN),-run '$(RUN)') $(PKG)

.PHONY: test-lab
test-lab: bin/gotestsum bin/lab bin/lvmsnap | $(OUTPUT)/test ## Run the tests that need real LVM, in the lab [LAB_PKG=./pkg/lvm RUN=]
	@if [[ -z "$(LAB_PKG)" ]]; then echo "make test-lab: no test file has the build tag lab" >&2; exit 1; fi
	CGO_ENABLED=0 bin/gotestsum --format testname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/lab.json -- \
	  -tags lab -exec "$(LAB)" -p 1 -count 1 -timeout 25m $(if $(RUN),-run '$(RUN)') $(LAB_PKG)

.PHONY: test-lab-self
test-lab-self: bin/gotestsum | $(OUTPUT)/test ## Test the lab itself: it boots, carries everything, and leaves nothing behind
	CGO_ENABLED=0 bin/gotestsum --format testname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/lab-self.json -- \
	  -tags labself -count 1 -timeout 15m $(if $(RUN),-run '$(RUN)') ./test/lab/

.PHONY: torture
torture: bin/lab ## Kill LVM before every system call that changes something, in the lab, for half an hour or more [RUN=TestTorture/restore ARGS='-all -every=5']
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(abspath bin/lab) --timeout 3h $(LABFLAGS) --" -count 1 -timeout 3h -v $(if $(RUN),-run '$(RUN)') ./test/torture \
	  -args $(or $(ARGS),-all)
	$(MAKE) torture-driver torture-powercut simulation

.PHONY: test-powercut
test-powercut: bin/gotestsum bin/lab bin/lvmsnap | $(OUTPUT)/test ## Cut the power of the lab's machine and compare what is there afterwards [CUTS=1]
	CGO_ENABLED=0 bin/gotestsum --format testname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/powercut.json -- \
	  -tags powercut -count 1 -timeout 25m ./test/powercut -args -lab $(abspath bin/lab) $(if $(CUTS),-cuts $(CUTS) -lossy-cuts $(CUTS))

.PHONY: simulation
simulation: bin/lab ## Thousands of random calls with faults below them, on the fake and on real LVM, beside a model
	$(GO) test -count 1 -timeout 30m -v -run TestOnFake ./test/simulation -rapid.checks 1000 -rapid.nofailfile
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(abspath bin/lab) --timeout 1h $(LABFLAGS) --" -count 1 -timeout 55m -v -run TestOnLVM ./test/simulation -args -rapid.checks 30 -rapid.nofailfile

.PHONY: torture-driver
torture-driver: bin/lab bin/lvmsnap ## Kill the driver at random moments of 1,000 calls
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(abspath bin/lab) --timeout 1h $(LABFLAGS) --" -count 1 -timeout 55m -v -run TestDriverKilled ./test/torture -args -driver-calls 1000

.PHONY: torture-powercut
torture-powercut: ## Cut the power of the lab's machine 20 times, and 20 times more under a disk that loses what was not flushed
	$(MAKE) test-powercut CUTS=20

.PHONY: bench
bench: bin/lab bin/lvmsnap | $(OUTPUT) ## Measure the driver beside the raw commands, in the lab, for some 20 minutes [QUICK=1: a minute or two]
	@hack/bench-machine >$(OUTPUT)/bench.txt
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(abspath bin/lab) --timeout 1h --memory 4G $(LABFLAGS) --" -run '^$$' -bench . -benchtime 1x -timeout 1h ./test/bench \
	  -args -samples $(abspath $(OUTPUT)/bench.txt) $(if $(QUICK),-quick)
	$(GO) run ./test/bench/report -samples $(OUTPUT)/bench.txt -table $(OUTPUT)/bench-table.txt

.PHONY: bench-docs
bench-docs: ## Make docs/benchmarks, tables and plots, of the last make bench
	$(GO) run ./test/bench/report -samples $(OUTPUT)/bench.txt -docs docs/benchmarks

.PHONY: sanity
sanity: bin/lab bin/lvmsnap ## Run csi-sanity against the real driver in the lab, and show what it says
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(LAB)" -count 1 -timeout 25m -v $(if $(RUN),-run '$(RUN)') ./test/sanity/

.PHONY: fuzz
fuzz: ## Run every fuzz target for a while [FUZZTIME=10s RUN=FuzzName]
	@targets=$$(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd pkg test 2>/dev/null | sed -E 's/^(.*)\/[^/]*:[0-9]+:func /\1 /' | sort -u || true)
	if [[ -n "$(RUN)" ]]; then targets=$$(grep -E ' ($(RUN))' <<<"$$targets" || true); fi
	if [[ -z "$$targets" ]]; then echo "make fuzz: no fuzz target" >&2; exit 1; fi
	while read -r dir name; do
	  echo "== $$name ./$$dir"
	  $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$dir"
	done <<<"$$targets"

##@ Check

.PHONY: lint
lint: bin/golangci-lint ## Lint everything, tests and lab included
	bin/golangci-lint run --allow-serial-runners $(PKG)

.PHONY: fmt
fmt: bin/golangci-lint ## Format everything
	bin/golangci-lint fmt

.PHONY: verify
verify: bin/golangci-lint ## Check that go.mod, generated files and the format are current, and vet
	@set -x
	$(GO) mod tidy -diff
	$(GO) -C hack/tools mod tidy -diff
	hack/verify-generated $(GO) generate ./...
	bin/golangci-lint config verify
	bin/golangci-lint fmt --diff
	$(GO) vet -tags lab ./...

##@ Help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET [NAME=value ...]" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# What follows are files. Go knows by itself whether its own programs are current, so these are always built;
# the tools only when missing or when their go.mod changed.

.PHONY: FORCE
FORCE:

bin/lvmsnap: FORCE
	@$(STATIC) -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/lvmsnap

bin/lab: FORCE
	@$(STATIC) -o $@ ./test/lab

bin/demo: FORCE
	@$(STATIC) -o $@ ./test/demo

bin/gotestsum: go.mod go.sum
	$(STATIC) -o $@ gotest.tools/gotestsum
	@touch $@

bin/csi-sanity: go.mod go.sum
	$(STATIC) -o $@ github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity
	@touch $@

bin/golangci-lint: hack/tools/go.mod hack/tools/go.sum
	CGO_ENABLED=0 $(GO) build -C hack/tools -trimpath -o $(abspath $@) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

bin/benchstat: hack/tools/go.mod hack/tools/go.sum
	CGO_ENABLED=0 $(GO) build -C hack/tools -trimpath -o $(abspath $@) golang.org/x/perf/cmd/benchstat
	@touch $@

$(OUTPUT) $(OUTPUT)/test:
	@mkdir -p $@
