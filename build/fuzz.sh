#!/bin/bash
# Every fuzz target of both modules, one after the other: build/fuzz.sh SECONDS
# Prints a line per target: how many executions, and what was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh
out=$(mktemp)
trap 'rm -f "$out"' EXIT
targets=0
for module in . e2e; do
	cd "$LARK_CHECKOUT/$module"
	for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | grep -v "^./e2e" || true); do
		for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go); do
			targets=$((targets + 1))
			if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "${1}s" "$dir" >"$out" 2>&1; then
				# With workers busy at the end of its time, go test may say just this
				# (golang.org/issue/75804). What it finds, it writes down.
				if grep -q 'Failing input written' "$out" || ! grep -q '^    context deadline exceeded$' "$out"; then
					cat "$out"
					die "$dir $target: failed"
				fi
			fi
			printf '%-24s %-24s %s\n' "$dir" "$target" "$(sed -n 's/.*\(execs: [0-9]*\).*\(new interesting.*\)/\1, \2/p' "$out" | tail -n1)"
		done
	done
done
echo "$targets fuzz targets, $1 s each: nothing found"
