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
SHARDS   ?= 1

VERSION ?= $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null || echo unknown)

# The version comes from git describe. Go's own stamp would fail the build in a clone that another user owns.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

STATIC := CGO_ENABLED=0 $(GO) build -trimpath
# A User Mode Linux that hangs costs one more machine, not the run (docs/adr/0005).
LAB    := $(abspath bin/lab) --hung-retries 1 $(LABFLAGS) --
OUTPUT := _output

# Outside of the tree: 600 MB that a new clone need not build again.
E2E_BIN    ?= $(HOME)/.cache/lvmsnap-e2e/bin
E2E_IMAGES ?= $(HOME)/.cache/lvmsnap-e2e/images
STATIC_E2E := CGO_ENABLED=0 $(GO) -C test/e2e/cluster build -trimpath

# Packages with tests that need the lab: those with a file tagged so.
LAB_PKG ?= $(sort $(filter-out ./test/e2e%, $(patsubst %/,./%,$(dir $(shell \
	grep -rlE --include='*_test.go' '^//go:build .*\blab\b' cmd pkg test 2>/dev/null)))))

##@ Build

.PHONY: build
build: bin/lvmsnap bin/lvmsnapctl ## Build the driver, bin/lvmsnap, and what shows its volumes, bin/lvmsnapctl

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

.PHONY: image-test
image-test: ## Build the image without a registry, base images from Debian's packages included, and test it (as root)
	@hack/need buildah=buildah debootstrap=debootstrap
	hack/image-bases
	$(GO) mod download # the build has the modules of this machine, and no network but by them
	begin=$$SECONDS
	buildah --storage-driver vfs bud --quiet --isolation chroot --build-arg VERSION="$(VERSION)" --timestamp "$$(git log -1 --format=%ct)" \
	  --volume "$$($(GO) env GOMODCACHE):/root/go/pkg/mod" --volume "$$($(GO) env GOCACHE):/root/.cache/go-build" --tag "$(IMAGE):test" .
	echo "built in $$((SECONDS - begin)) s"
	hack/image-test "$(IMAGE):test" "$(VERSION)"

.PHONY: image-lab
image-lab: image-test bin/lab ## Run tests against the image's driver with the image's LVM and a read-only root, in the lab [RUN=TestRestore]
	@container=$$(buildah --storage-driver vfs from "$(IMAGE):test")
	trap 'buildah --storage-driver vfs rm "$$container" >/dev/null' EXIT
	root=$$(buildah --storage-driver vfs mount "$$container")
	IMAGE_ROOT=$$root LVMSNAP_BIN=$(abspath hack/image-driver) CGO_ENABLED=0 $(GO) test -tags lab -exec "$(LAB)" -count 1 -v \
	  -run '$(if $(RUN),$(RUN),TestRestore$$|TestDeleteSourceThenRestore|TestExpandOnline)' ./test/integration

.PHONY: deb
deb: bin/lvmsnap bin/nfpm ## Build the Debian package for a host without Kubernetes: _output/deb
	@hack/need help2man=help2man
	VERSION='$(VERSION)' hack/deb $(OUTPUT)/deb

.PHONY: deb-test
deb-test: bin/lvmsnap bin/nfpm bin/lab ## Build the package twice, look at it, install it, and run tests in the lab with its driver [RUN=TestRestore]
	@hack/need help2man=help2man systemd-analyze=systemd groff=groff-base setpriv=util-linux
	VERSION='$(VERSION)' hack/deb-test $(OUTPUT)/deb-test
	LVMSNAP_BIN=$(abspath $(OUTPUT)/deb-test/driver) CGO_ENABLED=0 $(GO) test -tags lab -exec "$(LAB)" -count 1 -v \
	  -run '$(if $(RUN),$(RUN),TestRestore$$|TestDeleteSourceThenRestore|TestExpandOnline)' ./test/integration
	$(MAKE) systemd-test

.PHONY: systemd-test
systemd-test: bin/lvmsnap bin/nfpm bin/lab bin/docs ## Boot Debian's systemd in the lab, and run the package's service there, and the pages that need one
	@hack/need help2man=help2man /lib/systemd/systemd=systemd
	VERSION='$(VERSION)' hack/deb $(OUTPUT)/deb
	LVMSNAP_DEB=$$(realpath $(OUTPUT)/deb/*.deb) CGO_ENABLED=0 $(GO) test -tags systemd \
	  -exec "$(LAB:--=--mode uml --) $(abspath test/systemd/boot)" -count 1 -timeout 10m -v ./test/systemd
	for page in $$(bin/docs --list --systemd); do
	  $(LAB:--=--mode uml --disks 3 --disk-size 200G --) test/systemd/boot $(abspath bin/docs) --systemd "$$page"
	done

.PHONY: ctl-docs
ctl-docs: ## Make docs/reference/lvmsnapctl.md, and man pages and completions in _output/lvmsnapctl, from the commands
	$(GO) run ./hack/ctldocs -reference docs/reference/lvmsnapctl.md -dir $(OUTPUT)/lvmsnapctl

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
test: ## Run every test: units with the race detector, manifests, all that needs the lab (csi-sanity too), the lab itself
	@rm -rf $(OUTPUT)/test; rc=0
	$(MAKE) test-race || rc=1
	$(MAKE) test-manifests || rc=1
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

.PHONY: test-manifests
test-manifests: bin/gotestsum | $(OUTPUT)/test ## Test deploy/ and examples/ without a cluster: chart, overlays, types, flags, rights [RUN=]
	@cd test/manifests
	$(abspath bin/gotestsum) --format pkgname --format-hide-empty-pkg --jsonfile $(abspath $(OUTPUT))/test/manifests.json -- -count 1 $(if $(RUN),-run '$(RUN)') ./...

.PHONY: test-monitoring
test-monitoring: bin/lab bin/lvmsnap ## Test the alerts with promtool, and every query of the dashboard with a real Prometheus in the lab
	@hack/need promtool=prometheus prometheus=prometheus
	cd deploy/monitoring
	promtool check rules alerts.yaml
	promtool test rules alerts_test.yaml
	cd ../..
	CGO_ENABLED=0 $(GO) test -tags monitoring -exec "$(LAB)" -count 1 -timeout 10m -v -run TestDashboardAndAlerts ./test/monitoring

.PHONY: manifests
manifests: ## Render deploy/kustomize/base from the chart, and what tests know about the manifests
	$(GO) -C test/manifests test -count 1 -run 'TestBaseIsRendered|TestAlertsAreCopied' -update .
	$(GO) -C test/manifests test -count 1 -run 'TestSidecarFlags|TestDriverInputs' -update .

.PHONY: test-lab
test-lab: bin/gotestsum bin/lab bin/lvmsnap bin/lvmsnapctl | $(OUTPUT)/test ## Run the tests that need real LVM, in the lab [LAB_PKG=./pkg/lvm RUN=]
	@if [[ -z "$(LAB_PKG)" ]]; then echo "make test-lab: no test file has the build tag lab" >&2; exit 1; fi
	CGO_ENABLED=0 bin/gotestsum --format testname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/lab.json -- \
	  -tags lab -exec "$(LAB)" -p 2 -count 1 -timeout 25m $(if $(RUN),-run '$(RUN)') $(LAB_PKG)
	hack/test-summary $(OUTPUT)/test/lab.json

.PHONY: test-lab-self
test-lab-self: bin/gotestsum | $(OUTPUT)/test ## Test the lab itself: it boots, carries everything, and leaves nothing behind
	CGO_ENABLED=0 bin/gotestsum --format testname --format-hide-empty-pkg --jsonfile $(OUTPUT)/test/lab-self.json -- \
	  -tags labself -count 1 -timeout 15m $(if $(RUN),-run '$(RUN)') ./test/lab/

.PHONY: torture
torture: bin/lab | $(OUTPUT) ## Kill LVM before every system call that changes something, in the lab, for an hour or more [RUN=TestTorture/restore ARGS='-all -every=5' SHARDS=2]
	CGO_ENABLED=0 $(GO) test -tags lab -c -o $(OUTPUT)/torture.test ./test/torture
	for ((i = 1; i <= $(SHARDS); i++)); do
	  (bin/lab --timeout 3h $(LABFLAGS) -- $(abspath $(OUTPUT))/torture.test -test.v -test.timeout 3h -test.run '$(or $(RUN),TestTorture)' \
	    $(or $(ARGS),-all) -shard $$i -shards $(SHARDS) 2>&1 | sed -u "s/^/$$i: /") & shards[i]=$$!
	done
	rc=0; for pid in "$${shards[@]}"; do wait "$$pid" || rc=1; done; [[ $$rc = 0 ]]
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

.PHONY: hostile
hostile: bin/lab bin/lvmsnap ## Send the driver, on the fake and the real one on real LVM, requests that nobody would send, others each time [CALLS=2000 SEED=1]
	seed=$(or $(SEED),$$(date +%s))
	$(GO) test -count 1 -timeout 30m -v -run TestRandomRequests ./test/hostile -args -seed $$seed -seeds 2000
	CGO_ENABLED=0 $(GO) test -tags lab -exec "$(abspath bin/lab) --timeout 1h $(LABFLAGS) --" -count 1 -timeout 55m -v ./test/hostile/onlvm -args -calls $(or $(CALLS),2000) -seed $$seed

.PHONY: torture-powercut
torture-powercut: ## Cut the power of the lab's machine 20 times, and 20 times more under a disk that loses what was not flushed
	$(MAKE) test-powercut CUTS=20

.PHONY: bench
bench: bin/lab bin/lvmsnap | $(OUTPUT) ## Measure the driver beside the raw commands, in the lab, for some 30 minutes [QUICK=1: a minute or two]
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

.PHONY: e2e
e2e: bin/lab bin/lvmsnap e2e-programs e2e-chart ## Real API server and sidecars, with the repository's manifests and rights, in the lab (the first time builds Kubernetes)
	$(E2E_ENV) $(GO) -C test/e2e test -tags lab -exec "$(abspath bin/lab) --memory 3G --disks 3 $(LABFLAGS) --" -count 1 -timeout 25m -v $(if $(RUN),-run '$(RUN)') .

.PHONY: e2e-nodes
e2e-nodes: bin/lab bin/lvmsnap e2e-programs e2e-scheduler e2e-chart ## The same with a scheduler and two nodes, each on a machine with its own kernel and LVM; one loses its power [RUN=lists]
	@hack/need ip=iproute2
	$(E2E_ENV) E2E_LAB=$(abspath bin/lab) E2E_RUN='$(RUN)' $(GO) -C test/e2e test -tags lab,nodes -count 1 -timeout 20m -v -run '^TestTwoNodes$$' .

E2E_ENV = E2E_BIN=$(E2E_BIN) E2E_CHART=$(abspath $(OUTPUT))/chart.yaml LVMSNAP_BIN=$(abspath bin/lvmsnap) CGO_ENABLED=0 \
  E2E_CRDS=$$($(GO) -C test/e2e/cluster list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)/config/crd

.PHONY: e2e-scheduler
e2e-scheduler:
	@mkdir -p $(E2E_BIN)
	version=$$($(GO) -C test/e2e/cluster list -m -f '{{.Version}}' k8s.io/kubernetes)
	$(STATIC_E2E) -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version -X k8s.io/client-go/pkg/version.gitVersion=$$version" \
	  -o $(E2E_BIN)/ k8s.io/kubernetes/cmd/kube-scheduler

.PHONY: e2e-chart
e2e-chart: | $(OUTPUT)
	@$(GO) -C test/manifests test -count 1 -run TestBaseIsRendered -rendered $(abspath $(OUTPUT))/chart.yaml .

# The version is what API server and sidecars go by; they have none of their own when built so.
.PHONY: e2e-programs
e2e-programs:
	@mkdir -p $(E2E_BIN)
	version=$$($(GO) -C test/e2e/cluster list -m -f '{{.Version}}' k8s.io/kubernetes)
	$(STATIC_E2E) -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version -X k8s.io/client-go/pkg/version.gitVersion=$$version" \
	  -o $(E2E_BIN)/ tool

.PHONY: e2e-kubelet
e2e-kubelet: bin/lab bin/controlplane image-test e2e-kubelet-programs e2e-chart ## The manifests, and Helm's output, on a real kubelet and containerd with the image, in the lab (as root; the first time builds Kubernetes)
	@hack/need containerd=containerd runc=runc /usr/lib/cni/ptp=containernetworking-plugins busybox=busybox-static ip=iproute2
	hack/e2e-images $(E2E_BIN) $(E2E_IMAGES) "$(IMAGE):test"
	export CGO_ENABLED=0 E2E_BIN=$(E2E_BIN) E2E_IMAGES=$(E2E_IMAGES) E2E_CHART=$(abspath $(OUTPUT)/chart.yaml) E2E_LOGS=$(abspath $(OUTPUT)/kubelet)
	mkdir -p $$E2E_LOGS
	E2E_CRDS=$$($(GO) -C test/e2e/cluster list -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)/config/crd
	export E2E_CRDS
	disk=$(abspath $(OUTPUT)/kubelet.img)
	trap 'rm -f "$$disk"' EXIT
	$(GO) -C test/e2e test -tags lab -exec "$(abspath bin/lab) --mode uml --memory 4G --disk $(E2E_IMAGES)/disk.img --disks 0 $(LABFLAGS) --" -count 1 -v -run TestImages ./kubelet
	cp --sparse=always $(E2E_IMAGES)/disk.img "$$disk"
	$(GO) -C test/e2e test -tags lab -exec "unshare --net $(abspath bin/controlplane) $(abspath bin/lab) --mode uml --memory 4G --disk $$disk --disks 2 $(LABFLAGS) --" \
	  -count 1 -timeout 28m -v -run '$(if $(RUN),$(RUN),TestKubelet)' ./kubelet

# Kubelet, and the sidecars that the module proxy does not have.
.PHONY: e2e-kubelet-programs
e2e-kubelet-programs: e2e-programs
	@version=$$($(GO) -C test/e2e/cluster list -m -f '{{.Version}}' k8s.io/kubernetes)
	$(STATIC_E2E) -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version -X k8s.io/client-go/pkg/version.gitVersion=$$version" \
	  -o $(E2E_BIN)/ k8s.io/kubernetes/cmd/kubelet ./csi-node-driver-registrar ./livenessprobe

.PHONY: fuzz
fuzz: ## Run every fuzz target for a while [FUZZTIME=10s RUN=FuzzName]
	@targets=$$(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd pkg test 2>/dev/null | sed -E 's/^(.*)\/[^/]*:[0-9]+:func /\1 /' | sort -u || true)
	if [[ -n "$(RUN)" ]]; then targets=$$(grep -E ' ($(RUN))' <<<"$$targets" || true); fi
	if [[ -z "$$targets" ]]; then echo "make fuzz: no fuzz target" >&2; exit 1; fi
	while read -r dir name; do
	  echo "== $$name ./$$dir"
	  $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$dir"
	done <<<"$$targets"

##@ Documentation

.PHONY: docs
docs: bin/docs bin/lab bin/lvmsnap bin/grpcurl ## Check the documentation: links, and that the commands which it shows work in the lab [PAGE=docs/tutorials/single-machine.md]
	@bin/docs --check
	hack/pictures --check
	for page in $(if $(PAGE),$(PAGE),$$(bin/docs --list)); do $(LAB:--=--disks 3 --disk-size 200G --) $(abspath bin/docs) "$$page"; done
	if [[ -z "$(PAGE)" ]]; then $(LAB:--=--disks 3 --disk-size 200G --) $(abspath bin/docs) --spans; fi
	echo "Not run:"; bin/docs --not-run | sed 's/^[^ ]*: //' | sort | uniq -c | sort -rn

.PHONY: pictures
pictures: ## Draw the pictures of the documentation anew, from their sources beside them
	@hack/need dot=graphviz
	hack/pictures

RECORDING ?= $(OUTPUT)/recording

.PHONY: screenshot
screenshot: ## Photograph docs/how-to/pictures/console.png anew: the real driver in the lab, Prometheus, Chromium [RECORDING=DIR of an earlier one]
	@hack/need prometheus=prometheus chromium=chromium curl=curl
	if [[ ! -e $(RECORDING) ]]; then $(MAKE) $(RECORDING); fi
	hack/screenshot $(RECORDING) docs/how-to/pictures/console.png

# Four minutes of Prometheus's memory of the real driver; it stays until make clean.
$(RECORDING): | bin/lab bin/lvmsnap $(OUTPUT)
	MONITORING_KEEP=$(abspath $@) CGO_ENABLED=0 $(GO) test -tags monitoring -exec "$(LAB:--=--disk-size 2G --)" -count 1 -timeout 10m -v -run TestRecording ./test/monitoring

.PHONY: reference
reference: ## Make the tables of flags, parameters and metrics in docs/reference anew, from the code
	$(GO) generate ./cmd/lvmsnap ./pkg/driver

##@ Check

.PHONY: lint
lint: bin/golangci-lint ## Lint everything, tests and lab included
	bin/golangci-lint run --allow-serial-runners $(PKG)
	if [[ "$(PKG)" = ./... ]]; then
	  (cd test/manifests; $(abspath bin/golangci-lint) run --allow-serial-runners ./...)
	  (cd test/e2e; $(abspath bin/golangci-lint) run --allow-serial-runners --build-tags lab,nodes ./...)
	fi

.PHONY: fmt
fmt: bin/golangci-lint ## Format everything
	bin/golangci-lint fmt

.PHONY: verify
verify: bin/golangci-lint ## Check that go.mod, generated files and the format are current, and vet
	@set -x
	$(GO) mod tidy -diff
	$(GO) -C hack/tools mod tidy -diff
	$(GO) -C hack/more-tools mod tidy -diff
	$(GO) -C test/manifests mod tidy -diff
	$(GO) -C test/e2e mod tidy -diff
	hack/verify-generated $(GO) generate ./...
	hack/pictures --check
	bin/golangci-lint config verify
	bin/golangci-lint fmt --diff
	$(GO) vet -tags lab ./...
	$(GO) vet -tags monitoring,systemd ./test/monitoring ./test/systemd
	$(GO) -C test/manifests vet ./...
	$(GO) -C test/e2e vet -tags lab ./...
	$(GO) -C test/e2e vet -tags lab,nodes .

##@ Help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET [NAME=value ...]" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# What follows are files. Go knows by itself whether its own programs are current, so these are always built;
# the tools only when missing or when their go.mod changed.

.PHONY: FORCE
FORCE:

bin/lvmsnap: FORCE
	@$(STATIC) -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/lvmsnap

bin/lvmsnapctl: FORCE
	@$(STATIC) -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/lvmsnapctl

bin/lab: FORCE
	@$(STATIC) -o $@ ./test/lab

bin/docs: FORCE
	@$(STATIC) -o $@ ./test/docs

bin/controlplane: FORCE
	@CGO_ENABLED=0 $(GO) -C test/e2e build -trimpath -o $(abspath $@) ./kubelet/controlplane

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

bin/nfpm: hack/more-tools/go.mod hack/more-tools/go.sum
	CGO_ENABLED=0 $(GO) build -C hack/more-tools -trimpath -o $(abspath $@) github.com/goreleaser/nfpm/v2/cmd/nfpm
	@touch $@

bin/grpcurl: hack/more-tools/go.mod hack/more-tools/go.sum
	CGO_ENABLED=0 $(GO) build -C hack/more-tools -trimpath -o $(abspath $@) github.com/fullstorydev/grpcurl/cmd/grpcurl
	@touch $@

$(OUTPUT) $(OUTPUT)/test:
	@mkdir -p $@
