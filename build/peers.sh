#!/bin/bash
# Builds the programs that the tests hold lark against, from the Go module
# proxy, into the cache outside the checkout, and prints the directory of each:
#
#   build/peers.sh containerd-2.4.2 runc-1.5.2
#
# containerd: containerd, ctr and its own containerd-shim-runc-v2, static.
# runc: needs gcc, is built without seccomp (its library is not at hand).
# A version that is there already costs nothing; a lock keeps two makes from
# building at once, and a build appears under its name only when it is whole.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=build/env.sh
. "$here/env.sh"

# quietly runs a go command without the lines that say what it downloads.
quietly() { "$@" 2> >(grep -v '^go: downloading ' >&2); }

# source_of MODULE VERSION: fetches a module, verified by the checksum database,
# and prints the directory of its source.
source_of() {
	(cd / && GOFLAGS= quietly go mod download -json "$1@$2") | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p'
}

build_containerd() { # VERSION DESTINATION
	local module=github.com/containerd/containerd dir
	case $1 in [2-9].*) module+=/v${1%%.*} ;; esac
	dir=$(source_of "$module" "v$1")
	cd "$dir"
	CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off quietly go build -trimpath \
		-tags 'no_btrfs no_devmapper no_zfs no_aufs urfave_cli_no_docs' \
		-ldflags "-s -w -X $module/version.Version=v$1" \
		-o "$2/" ./cmd/containerd ./cmd/ctr
	# The shim as its own Makefile builds it: without gRPC and tracing.
	CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off quietly go build -trimpath \
		-tags 'no_btrfs no_devmapper no_zfs no_aufs urfave_cli_no_docs no_grpc' \
		-ldflags "-s -w -X $module/version.Version=v$1" \
		-o "$2/" ./cmd/containerd-shim-runc-v2
}

build_runc() { # VERSION DESTINATION
	local dir
	need gcc gcc libc6-dev
	dir=$(source_of github.com/opencontainers/runc "v$1")
	cd "$dir"
	CGO_ENABLED=1 GOFLAGS=-mod=readonly GOWORK=off quietly go build -trimpath \
		-tags 'netgo osusergo' -ldflags "-s -w -X main.version=$1 -extldflags -static" -o "$2/runc" .
}

for peer in "$@"; do
	dest=$LARK_CACHE/$peer
	if [ ! -d "$dest" ]; then
		mkdir -p "$LARK_CACHE"
		(
			flock 9
			[ ! -d "$dest" ] || exit 0
			tmp=$(mktemp -d "$LARK_CACHE/.$peer.XXXXXX")
			trap 'rm -rf "$tmp"' EXIT
			say "building $peer from the module proxy (once; kept in $LARK_CACHE)"
			case $peer in
			containerd-*) build_containerd "${peer#containerd-}" "$tmp" ;;
			runc-*) build_runc "${peer#runc-}" "$tmp" ;;
			*) die "no such peer: $peer" ;;
			esac
			chmod 0755 "$tmp"
			mv "$tmp" "$dest"
		) 9>"$LARK_CACHE/.peers.lock" >&2
	fi
	echo "$dest"
done
