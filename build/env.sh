# Sourced by the Makefile's recipes and the scripts beside it: finds the cache
# outside the checkout, a Go that is new enough, and the system's packages.
# Everything that it has to fetch or install it says on standard error.

LARK_CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${HOME:=/root}"
LARK_CACHE=${LARK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lark}
# The Go that go.mod names, and the hashes of its toolchain modules as the Go
# module proxy serves them. All three change together.
LARK_GO=1.26.8
LARK_GO_SHA256_amd64=30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7
LARK_GO_SHA256_arm64=02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99
export LARK_CHECKOUT LARK_CACHE

say() { printf 'lark: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# need PROGRAM PACKAGE...: installs the packages unless the program is there. A
# program given as a path is a file. `need_all` below collects several.
need() { need_all "$1:${*:2}"; }

# need_all PROGRAM:PACKAGES ...: one apt-get for all that is missing.
need_all() {
	local want missing=()
	for want in "$@"; do
		have "${want%%:*}" || read -ra missing <<<"${missing[*]} ${want#*:}"
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	apt_install "${missing[@]}"
}

have() {
	case $1 in
	/*) [ -e "$1" ] ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

apt_install() {
	command -v apt-get >/dev/null || die "missing: $*; this is no Debian or Ubuntu: install them by hand"
	[ "$(id -u)" = 0 ] || die "missing: $*; run as root, or install them first"
	say "installing $* (apt-get)"
	mkdir -p "$LARK_CACHE"
	(
		flock 9
		export DEBIAN_FRONTEND=noninteractive
		no_services
		if [ ! -e "$LARK_CACHE/.apt-updated" ] || [ -n "$(find "$LARK_CACHE/.apt-updated" -mmin +60)" ]; then
			apt-get -qq update >&2
			touch "$LARK_CACHE/.apt-updated"
		fi
		# --no-remove: a machine's own Docker must not go to make room.
		apt-get -qq -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 install "$@" >"$LARK_CACHE/apt.log" 2>&1 ||
			{ cat "$LARK_CACHE/apt.log" >&2 && exit 1; }
	) 9>"$LARK_CACHE/.apt.lock" </dev/null || die "could not install $*"
}

# no_services keeps what is installed from starting a daemon of its own: the
# tests start theirs in private directories. Debian asks policy-rc.d for leave.
# It runs in apt_install's subshell, whose end takes the answer away again.
no_services() {
	local policy=/usr/sbin/policy-rc.d
	[ ! -e $policy ] || return 0
	trap "rm -f $policy" EXIT
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 0755 $policy
}

# at_least HAVE WANT: compares versions such as 1.26.8.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# find_go puts a Go of at least LARK_GO first in PATH, and sees to it that it can
# tell whom it fetches modules from: a bare Debian has no certificates at all.
find_go() {
	local version
	[ -n "${SSL_CERT_FILE:-}" ] || [ -d /etc/pki ] || need /etc/ssl/certs/ca-certificates.crt ca-certificates
	export GOTOOLCHAIN=local
	version=$(go env GOVERSION 2>/dev/null || true)
	if [ -z "$version" ] || ! at_least "${version#go}" "$LARK_GO"; then
		fetch_go "${version:-none}"
		PATH=$LARK_CACHE/go$LARK_GO/bin:$PATH
		export PATH
	fi
}

# fetch_go unpacks the toolchain module of the module proxy, checked against the
# hash above, into the cache.
fetch_go() {
	local dest=$LARK_CACHE/go$LARK_GO arch hash proxy url tmp
	[ ! -x "$dest/bin/go" ] || return 0
	case $(uname -m) in
	x86_64) arch=amd64 hash=$LARK_GO_SHA256_amd64 ;;
	aarch64) arch=arm64 hash=$LARK_GO_SHA256_arm64 ;;
	*) die "no Go toolchain is pinned for $(uname -m): install Go $LARK_GO" ;;
	esac
	proxy=${GOPROXY:-}
	proxy=${proxy%%[,|]*}
	case $proxy in '' | direct | off) proxy=https://proxy.golang.org ;; esac
	url=${proxy%/}/golang.org/toolchain/@v/v0.0.1-go$LARK_GO.linux-$arch.zip
	if have wget; then need_all unzip:unzip; else need_all unzip:unzip curl:curl; fi
	say "Go is $1, $LARK_GO is needed: fetching it (once; kept in $LARK_CACHE)"
	mkdir -p "$LARK_CACHE"
	(
		flock 9
		[ ! -x "$dest/bin/go" ] || exit 0
		tmp=$(mktemp -d "$LARK_CACHE/.go.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		if have curl; then curl -fsSL --retry 3 -o "$tmp/go.zip" "$url"; else wget -q -O "$tmp/go.zip" "$url"; fi ||
			die "could not fetch $url"
		echo "$hash  $tmp/go.zip" | sha256sum --check --status || die "$url is not what was pinned"
		unzip -q "$tmp/go.zip" -d "$tmp"
		unpack_toolchain "$tmp/golang.org/toolchain@v0.0.1-go$LARK_GO.linux-$arch"
		mv "$tmp/golang.org/toolchain@v0.0.1-go$LARK_GO.linux-$arch" "$dest"
	) 9>"$LARK_CACHE/.go.lock" >&2 || exit 1
}

# unpack_toolchain undoes what a module's zip cannot hold: modes, and go.mod
# files below the root, which are called _go.mod there.
unpack_toolchain() {
	chmod +x "$1"/bin/* "$1"/pkg/tool/*/*
	find "$1" -name _go.mod -execdir mv -T _go.mod go.mod \;
}

find_go
