#!/bin/bash
# Every fuzz target of both modules, one after the other: build/fuzz.sh SECONDS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh
for module in . e2e; do
	cd "$LARK_CHECKOUT/$module"
	for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | grep -v "^./e2e" || true); do
		for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go); do
			go test -run '^$' -fuzz "^$target\$" -fuzztime "${1}s" "$dir"
		done
	done
done
