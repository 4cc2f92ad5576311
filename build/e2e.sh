#!/bin/bash
# The tests against a real containerd: build/e2e.sh TIMEOUT
# without the storms, which run alone so that their figures mean something, and
# without what `make conformance` runs, for which more must be installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh

build/which-containerd.sh
cd e2e
mapfile -t packages < <(go list ./... | grep -vE '/(conformance|cri|docker|smoke|storm)$')
go test -count=1 -p 1 -timeout "$1" "${packages[@]}"
