#!/bin/bash
# A crowd at the runtime: build/crowd.sh EXECS SERIAL_EXECS SECONDS
#
# EXECS execs at once through `lark run`, and SERIAL_EXECS at once with a runtime
# that serialises its execs and takes SECONDS for each. All must succeed, and the
# order of their events must hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. build/env.sh
execs=$1 serial=$2 each=$3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
runc=$(command -v runc)
cat >"$work/serial-runc" <<END
#!/bin/sh
case " \$* " in
*" exec "*) exec flock $work/lock sh -c 'sleep $each; exec $runc "\$@"' sh "\$@" ;;
esac
exec $runc "\$@"
END
chmod +x "$work/serial-runc"

# crowd TITLE ARGUMENTS...: runs it and prints what it took.
crowd() {
	local title=$1 from to last
	shift
	from=$(date +%s%N)
	bin/lark run -q --rootfs rootfs "$@" -- sleep 3600 >"$work/out" 2>&1 || {
		tail -n 20 "$work/out" >&2
		die "crowd: $title: failed"
	}
	to=$(date +%s%N)
	last=$(tail -n 1 "$work/out")
	printf 'crowd: %s: all succeeded in %d.%d s: %s\n' "$title" $(((to - from) / 1000000000)) $(((to - from) / 100000000 % 10)) "$last"
}

crowd "$execs execs at once" --execs "$execs"
crowd "$serial execs at once, serialised by the runtime, $each s each" --execs "$serial" --runtime "$work/serial-runc"
