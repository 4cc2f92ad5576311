#!/bin/bash
# gofmt and go vet of both modules, and what no tool would notice: that the Go
# version of go.mod is the one whose hash build/env.sh has pinned.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh

unformatted=$(gofmt -l $(find . -name '*.go' -not -path './bin/*' -not -path './rootfs/*'))
[ -z "$unformatted" ] || die "gofmt -w: $unformatted"
for module in . e2e; do
	wanted=$(sed -n 's/^go //p' $module/go.mod)
	[ "$wanted" = "$LARK_GO" ] || die "$module/go.mod wants Go $wanted, build/env.sh pins $LARK_GO"
	(cd $module && go vet ./...)
done
# What only a build with the failpoints in it compiles.
CGO_ENABLED=0 go vet -tags failpoint ./internal/failpoint ./internal/task
for script in build/*.sh .ci/run; do bash -n "$script"; done
say "gofmt and go vet are content"
