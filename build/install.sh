#!/bin/bash
# Installs or removes what `make build` has built:
#
#   build/install.sh install|uninstall BINDIR
#
# Nothing is compiled: root need not have Go. Each program is written beside its
# place and renamed over it, so that at every moment there is a whole one, old or
# new, and one that runs goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
programs=(containerd-shim-lark-v2 lark)
bindir=$2

die() {
	printf 'lark: %s\n' "$*" >&2
	exit 1
}

install_all() {
	local p
	for p in "${programs[@]}"; do
		[ -x "bin/$p" ] || die "there is no bin/$p: run \`make build\` first"
	done
	mkdir -p "$bindir"
	# Its own directory, on the same file system: no name of it is ever a program's.
	new=$(mktemp -d "$bindir/.lark-install.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	for p in "${programs[@]}"; do
		install -m 0755 "bin/$p" "$new/$p"
	done
	# A crash must not leave a name without its content.
	sync "${programs[@]/#/$new/}"
	for p in "${programs[@]}"; do
		mv -fT "$new/$p" "$bindir/$p"
	done
}

case $1 in
install) install_all ;;
uninstall) rm -f -- "${programs[@]/#/$bindir/}" ;;
*) die "$1 is neither install nor uninstall" ;;
esac
