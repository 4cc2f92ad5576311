#!/bin/bash
# Storms: build/storm.sh CONTAINERS SECONDS
# that many containers under each containerd, or, where SECONDS is not 0, as many
# as fit into that time. Other shims and daemons can be tried through the
# environment: LARK_E2E_SHIM, LARK_E2E_CONTAINERDS (see e2e/storm).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../e2e"
. ../build/env.sh
export LARK_E2E_STORM_CONTAINERS=$1 LARK_E2E_STORM_SECONDS=$2
go test -count=1 -timeout $((2 * $2 + 1800))s -v ./storm | grep -v '^=== '
