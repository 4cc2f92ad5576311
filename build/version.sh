#!/bin/bash
# Prints the linker's flags that say what is built: version and revision.
# LARK_VERSION and LARK_REVISION decide, for packagers; then git, with .m after
# the revision of a changed tree as containerd has it; then what git-archive(1)
# has put into this file, which is how a tarball knows. A version comes from a
# tag; without one the program keeps its own (internal/version).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
archived_revision='$Format:%H$'
archived_tags='$Format:%D$'

# A checkout may belong to another user than root. A tree unpacked inside some
# other repository is not that repository's.
in_git() { git -C "$root" -c safe.directory="$root" "$@" 2>/dev/null; }

version=${LARK_VERSION:-} revision=${LARK_REVISION:-}
if [ "$(in_git rev-parse --show-toplevel)" = "$(realpath "$root")" ]; then
	[ -n "$version" ] || version=$(in_git describe --tags --exact-match --match 'v[0-9]*' || true)
	if [ -z "$revision" ]; then
		revision=$(in_git rev-parse HEAD || true)
		[ -z "$(in_git status --porcelain --untracked-files=no)" ] || revision+=.m
	fi
elif [[ $archived_revision != *Format* ]]; then
	[ -n "$version" ] || version=$(sed -n 's/.*tag: \(v[0-9][^,]*\).*/\1/p' <<<"$archived_tags")
	[ -n "$revision" ] || revision=$archived_revision
fi

package=github.com/larkshim/lark/internal/version
flags="-X $package.Revision=${revision:-unknown}"
[ -z "$version" ] || flags+=" -X $package.Version=$version"
echo "$flags"
