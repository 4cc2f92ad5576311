#!/bin/bash
# The main module's tests: build/unit.sh TIMEOUT [PACKAGE...]
# with the race detector where there is gcc; the packages named are tested
# without, since it cannot run them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh
timeout=$1
shift

race=-race
if ! command -v gcc >/dev/null; then
	say "no gcc: the tests run without the race detector"
	race=
fi
mapfile -t packages < <(go list ./... | grep -vxF -e "$(printf '%s\n' "${@:-none}")")
# One package after the other: several look at the machine's processes, and two at a
# time only wait for one another on two cores.
status=0
CGO_ENABLED=${race:+1} go test ${race:+$race} -p 1 -skip '^TestPlantedFaults' -timeout "$timeout" "${packages[@]}" || status=1
# The planted faults are built without the race detector, and the outer test
# has nothing for it to see either.
mapfile -t planted < <(grep -rl --include='*planted_test.go' 'func TestPlantedFaults' . | xargs -n1 dirname | sort -u)
go test -count=1 -v -p 1 -run '^TestPlantedFaults' -timeout "$timeout" "${planted[@]}" | grep -vE '^(=== |PASS$| +--- PASS)' || status=1
# The figures of the search, which a passing test does not show.
go test -count=1 -v -run '^(TestSearch|TestMutations)$' ./lifecycle ./lifecycle/shim | grep -E '^(lifecycle:|---|ok|PASS|FAIL)' || status=1
CGO_ENABLED=0 go test -count=1 -v -run '^TestSimulation' ./internal/task -sim.seeds=3000 | grep -E '^(simulation:|---|ok|PASS|FAIL)' || status=1
if [ $# -gt 0 ]; then
	say "without the race detector, which cannot run them: $*"
	go test -timeout "$timeout" "$@" || status=1
fi
exit $status
