#!/bin/bash
# The soak: build/soak.sh SECONDS
# under containerd 2.4, or whichever LARK_E2E_CONTAINERDS names; how else it can be
# varied is said in e2e/soak/soak_test.go. The wave that the time runs out in is
# brought to its end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../e2e"
. ../build/env.sh
export LARK_E2E_SOAK_SECONDS=$1
go test -count=1 -timeout $((2 * $1 + 1800))s -v -run '^TestSoak$' ./soak | grep -v '^=== '
