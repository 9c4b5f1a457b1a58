# The commands of this project. Each installs the Debian packages it needs by itself.

.PHONY: help demo run test bench soak lint clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/' | expand -t 16

demo: ## Build, run a complete instance, walk a file and a virus through it, and stop
	deploy/demo

run: ## Build and serve the demo instance in ./demo until Ctrl-C
	deploy/run

test: ## Formatting, lints and every test (real clamd, OpenSSH, lftp, FileZilla, Chromium, SMTP, PostgreSQL)
	cargo fmt --check
	cargo lint
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked --quiet
	tests/with-services cargo nextest run --locked --no-fail-fast --test-threads 4

soak: ## 30 minutes of 20 customers through kills and faults, then invariants I1 to I16; and the crash test with 100 kills
	PTPORTAL_SOAK_MINUTES=30 tests/with-services cargo nextest run --locked --no-capture -E 'test(what_customers_saw)'
	PTPORTAL_SOAK_KILLS=100 tests/with-services cargo nextest run --locked --no-capture -E 'test(what_a_client_saw_succeed)'

bench: ## Beside OpenSSH's sshd, vsftpd and ProFTPD: speed, CPU, memory of the fronts; beside clamd: time to the answer
	tests/with-services cargo build --release --locked
	deploy/packages proftpd-core proftpd-mod-crypto proftpd-mod-clamav
	benches/front.py
	benches/ftps.py
	benches/verdict.py
	benches/scale.py
	benches/virus.py

lint: ## Formatting and lints only
	cargo fmt --check
	cargo lint

clean: ## Remove everything built, and the demo instance
	cargo clean
	rm -rf demo
