#!/bin/bash
# Says which containerd of the system the tests use. Debian 12 has 1.6, the last
# with the big lock; other distributions have others, and the tests take them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
binary=$(PATH=/usr/bin:$PATH:/usr/sbin command -v containerd) || die "no containerd is installed"
version=$("$binary" --version | cut -d' ' -f3)
case ${version#v} in
1.6.*) say "the system's containerd is ${version#v}" ;;
*) say "ATTENTION: the system's containerd is ${version#v}, not 1.6: what is meant for 1.6 is tested against it" ;;
esac
