# What it takes to work on mailstow. `make test` is all that CI runs.

GO ?= go
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: build install demo test quick lint vuln fuzz bench crash scale memory clean

build: ## one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/mailstow .

PREFIX ?= /usr/local
install: ## the binary and the manual
	install -D -m 755 bin/mailstow $(DESTDIR)$(PREFIX)/bin/mailstow
	for page in docs/man/*.[157]; do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done

demo: build ## the main job, on sample mail
	bin/mailstow demo

test: ## everything that must pass; gets mail servers where it may
	bash internal/mailtest/install.sh
	$(MAKE) --no-print-directory lint
	$(GO) test -race -parallel 8 -timeout 12m ./...

quick: ## the tests that need no server
	$(GO) test -short ./...

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "these files are not gofmt-ed"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

vuln: ## needs the network
	$(GOVULNCHECK) ./...

FUZZTIME ?= 60s
fuzz: ## what strangers send
	$(GO) test -run '^$$' -fuzz FuzzPrint -fuzztime $(FUZZTIME) ./internal/fingerprint
	$(GO) test -run '^$$' -fuzz FuzzText -fuzztime $(FUZZTIME) ./internal/fingerprint
	$(GO) test -run '^$$' -fuzz FuzzNames -fuzztime $(FUZZTIME) ./mailbox
	$(GO) test -run '^$$' -fuzz FuzzPaths -fuzztime $(FUZZTIME) ./maildir
	$(GO) test -run '^$$' -fuzz FuzzAnyAnswer -fuzztime $(FUZZTIME) ./internal/imapwire
	$(GO) test -run '^$$' -fuzz FuzzNames -fuzztime $(FUZZTIME) ./internal/imapwire
	$(GO) test -run '^$$' -fuzz FuzzBody -fuzztime $(FUZZTIME) ./internal/pop3wire
	$(GO) test -run '^$$' -fuzz FuzzReader -fuzztime $(FUZZTIME) ./internal/repair
	$(GO) test -run '^$$' -fuzz FuzzPairs -fuzztime $(FUZZTIME) ./internal/config
	$(GO) test -run '^$$' -fuzz FuzzShown -fuzztime $(FUZZTIME) ./internal/cli

bench: ## speed beside mbsync; see docs/performance.md
	$(GO) test -run '^$$' -bench . -benchtime 3x -timeout 30m ./internal/cli

crash: ## kill -9, two hundred times a server; and at every command of a trim
	$(GO) test -v -run TestKilledTwentyTimes -count 10 -timeout 30m ./internal/cli
	MAILSTOW_TEST_SCALE=1 $(GO) test -v -run TestTrimKilled -timeout 30m ./internal/cli

scale: ## 200,000 messages, 2,000 folders, 20,000 over POP3, on each server at 0, 20 and 80 ms; 20,000 moved, killed 20 times
	MAILSTOW_TEST_SCALE=1 $(GO) test -v -run 'TestLarge|TestManyFolders|TestMoveKilled' -timeout 4h ./internal/cli

memory: ## a message of 1 GiB in flat memory
	MAILSTOW_TEST_BIG=1 $(GO) test -v -run 'TestHugeMessage' -timeout 20m ./internal/cli

clean:
	rm -rf bin
