#!/bin/bash
# Mutation tests: build/mutants.sh PACKAGE...
#
# Every covered conditional, operator and counter of the packages is changed, one
# at a time, and the package's tests run. Prints each mutant that they do not
# notice and the score; build/mutants.harmless lists those that change nothing
# that can be seen, with the reason. Exit status 1 if there are others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh
version=v0.6.0
tool=$LARK_CACHE/gremlins-$version/gremlins
harmless=build/mutants.harmless
[ -x "$tool" ] || GOBIN=$(dirname "$tool") GOFLAGS= CGO_ENABLED=0 go install "github.com/go-gremlins/gremlins/cmd/gremlins@$version"

# The planted faults do not fit a changed source. What tries broken copies of the
# rules says nothing of the rules themselves, and takes minutes.
export CGO_ENABLED=0 GOFLAGS='-buildvcs=false -skip=^(TestPlantedFaults.*|TestMutations|TestEveryCellMatters|TestSearchApart)$'

# reason FILE TYPE LINE: why that mutant is harmless; empty if it is not known to be.
reason() {
	awk -F'\t' -v f="$1" -v t="$2" -v l="$3" '$1 == f && $2 == t && $3 == l { print $4; exit }' "$harmless"
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT
status=0
for package in "$@"; do
	# A mutant that loops is found by the time that it takes.
	"$tool" unleash --tags mutants --workers 2 --timeout-coefficient 10 "./$package" >"$out" 2>&1 || {
		tail -n 20 "$out" >&2
		die "mutants: $package: the tests do not pass, or the tool failed"
	}
	killed=$(grep -cE '^ *(KILLED|TIMED OUT) ' "$out" || true)
	known=0 survived=0
	while read -r _ type _ at; do
		at=${at#"$package/"}
		IFS=: read -r file line _ <<<"$at"
		text=$(sed -n "${line}s/^[[:space:]]*//p" "$package/$file")
		why=$(reason "$package/$file" "$type" "$text")
		if [ -n "$why" ]; then
			known=$((known + 1))
			continue
		fi
		survived=$((survived + 1))
		printf 'mutants: survived: %s/%s %s: %s\n' "$package" "$at" "$type" "$text"
	done < <(grep -E '^ *LIVED ' "$out")
	uncovered=$(grep -cE '^ *NOT COVERED ' "$out" || true)
	total=$((killed + survived))
	printf 'mutants: %s: %d of %d noticed (%d%%), %d more change nothing, %d in lines that no test reaches\n' \
		"$package" "$killed" "$total" $((total ? 100 * killed / total : 100)) "$known" "$uncovered"
	[ "$survived" = 0 ] || status=1
done
exit $status
