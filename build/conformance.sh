#!/bin/bash
# Installs what the conformance tests run, from the system's packages:
#
#   build/conformance.sh              everything
#   build/conformance.sh dockerd ...  only what these programs need
#
# Docker is Debian's own (20.10 on Debian 12), the last that comes with the
# containerd of the system. criu and mkfs.xfs are for tests of containerd's that
# skip themselves without.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

declare -A packages=(
	[/usr/sbin/dockerd]=docker.io [/usr/bin/docker]=docker.io
	[runc]=runc [containerd]=containerd [busybox]=busybox-static
	[lsof]=lsof [criu]=criu [mkfs.xfs]=xfsprogs
)
[ $# -gt 0 ] || set -- "${!packages[@]}"
wanted=()
for program in "$@"; do
	[ -n "${packages[$program]:-}" ] || die "no package is known for $program"
	wanted+=("$program:${packages[$program]}")
done
need_all "${wanted[@]}"
