# Targets carry "## what" for make help.
GO       ?= go
FUZZTIME ?= 5s
LINT     ?= github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VULN     ?= golang.org/x/vuln/cmd/govulncheck@latest

.PHONY: help build test check fmt vet lint fuzz soak bench fleet demo golden man deps vuln

help: ## what can be done here
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

build: ## build loomd into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

test: ## run all tests
	CGO_ENABLED=0 $(GO) build ./...
	$(GO) test -race ./...
	$(GO) test -run TestSchedulerYear . # with all of its jobs

check: fmt vet lint test fuzz ## everything that must hold before a change is merged

fmt:
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }

vet: # for the other systems too, which it only has to build for
	$(GO) vet ./...
	for os in darwin freebsd openbsd; do GOOS=$$os GOARCH=amd64 CGO_ENABLED=0 $(GO) vet ./... || exit 1; done

lint: ## golangci-lint, by the list in .golangci.yml
	$(GO) run $(LINT) run ./...

fuzz: ## every fuzz target, for FUZZTIME (5s) each
	@$(GO) list ./... | while read -r pkg; do \
		dir=$$($(GO) list -f '{{.Dir}}' $$pkg); \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | sed 's/func //'); do \
			echo "fuzz $$pkg $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

soak: ## kill a busy daemon a thousand times (an hour), and hold its store against the nodes
	LOOM_CRASHES=$${LOOM_CRASHES:-1000} $(GO) test -timeout 0 -run TestCrash -v ./cmd/loomd

bench: ## Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

fleet: ## 200 local sshd nodes: Loom against its peers
	cd bench/fleet && $(GO) run .

demo: ## a fleet of in-process nodes
	$(GO) run ./cmd/loomd demo

golden: ## rewrite golden files from what the code does now
	$(GO) test ./... -update

man: ## write docs/man from the commands' help
	$(GO) test ./cmd/loom -run TestManual -update

deps: ## install what the tests use on Debian: real sshd, sshfs, other shells, npm
	apt-get update -qq
	command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		openssh-server openssh-client sshfs fuse3 sudo fish zsh bash-completion groff tcsh busybox procps psmisc

vuln: ## govulncheck; needs its database
	$(GO) run $(VULN) ./...
