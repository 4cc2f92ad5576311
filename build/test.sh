#!/bin/bash
# Runs the parts of `make test`, all of them even if one fails, and says at the
# end which failed: build/test.sh [PART...]
# A part is a target of the Makefile. LARK_FAILED=FILE receives the parts that failed,
# one a line, so that a caller can run them again. The names of the failed tests
# come after the output of all parts: the end of a log says what failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

parts=("$@")
[ $# -gt 0 ] || parts=(lint build cross-short unit fuzz-short e2e storm)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# names prints the lines of a part's output that name a test or a package that
# failed, or what stopped it, and its last lines if there are none.
names() {
	grep -E '^ *--- FAIL: |^FAIL[[:space:]]+[^[:space:]]|^panic: |^WARNING: DATA RACE|^lark: .*(failed|FAILED)' "$1" |
		awk '!seen[$0]++' | head -n 40 | grep . || tail -n 10 "$1"
}

failed=()
table=()
for part in "${parts[@]}"; do
	printf '\n== %s\n' "$part"
	began=$SECONDS
	verdict=passed
	if ! ${MAKE:-make} --no-print-directory "$part" 2>&1 | tee "$scratch/$part"; then
		verdict=FAILED
		failed+=("$part")
	fi
	table+=("$(printf '%-12s %-8s %5d s' "$part" "$verdict" $((SECONDS - began)))")
done
[ -z "${LARK_FAILED:-}" ] || printf '%s' "${failed[@]/%/$'\n'}" >"$LARK_FAILED"

for part in "${failed[@]}"; do
	printf '\n== what failed in %s\n' "$part"
	names "$scratch/$part"
done
printf '\n%-12s %-8s %7s\n' part verdict seconds
printf '%s\n' "${table[@]}"
if [ ${#failed[@]} -gt 0 ]; then
	printf '\nlark: FAILED: %s\n' "${failed[*]}"
	exit 1
fi
printf '\nlark: every part passed, in %d s\n' "$SECONDS"
