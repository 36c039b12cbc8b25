# Hermod. «make» alone prints what there is.

GO      ?= go
TOOLS   := $(CURDIR)/.tools/go.mod
FUZZTIME ?= 60s
LDFLAGS := -s -w -X main.version=$(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

.DEFAULT_GOAL := help

.PHONY: help
help: ## print this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.PHONY: build
build: ## static binaries into ./bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: run
run: build ## start a server on 127.0.0.1:5100, data in ./data
	./bin/hermod

.PHONY: cluster
cluster: build ## a cluster to play with: 3 nodes, 4 MySQL shards, Redis; Ctrl-C ends it
	./bin/hermodctl cluster dev

.PHONY: test
test: need-gcc lint ## everything: lint, unit, contract, end-to-end, race, 5 s of each fuzzer
	$(GO) test -race -timeout 15m ./...
	$(GO) test -run 'Alloc' ./...
	.ci/fuzz 5s

# The race detector needs cgo.
.PHONY: need-gcc
need-gcc:
	@command -v gcc >/dev/null || { echo 'make test needs gcc for the race detector: install it (apt-get install gcc libc6-dev)'; exit 1; }

.PHONY: lint
lint: ## gofmt, vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$')); [ -z "$$bad" ] || { echo "not gofmt'd:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags torture ./storage/... ./router ./conn/chat ./cmd/hermod
	$(GO) run -modfile=$(TOOLS) honnef.co/go/tools/cmd/staticcheck ./...

.PHONY: fuzz
fuzz: ## each fuzzer for FUZZTIME (60s)
	.ci/fuzz $(FUZZTIME)

.PHONY: proto
proto: ## lint the .proto files and generate their Go code
	cd proto && $(GO) run -modfile=$(TOOLS) github.com/bufbuild/buf/cmd/buf lint
	cd proto && $(GO) run -modfile=$(TOOLS) github.com/bufbuild/buf/cmd/buf generate

.PHONY: torture
torture: build ## break a cluster for three quarters of an hour while a million messages go through it, and look for every one
	mkdir -p torture-results
	./bin/hermod-bench torture --messages 1000000 --faults 100 --people 200 --rate 500 --evidence torture-results --json torture-results/report.json

.PHONY: bench
bench: build ## the figures of the README, measured here (about 35 minutes)
	.ci/bench
