#!/bin/bash
# Runs a command on a machine that is made slow:
#
#   build/slowly.sh loops N CMD...        beside N busy loops of equal priority
#   build/slowly.sh quota PERCENT CMD...  with PERCENT of the time of all CPUs
#
# The loops are of this script's session: the scheduler shares time among
# sessions first, and then within one (autogroup, sched(7)). The quota is a
# cgroup's cpu.cfs_quota_us (v1) or cpu.max (v2), and needs root. The exit status
# is the command's; the loops and the cgroup are removed however it ends.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ $# -ge 3 ] && [[ $2 =~ ^[1-9][0-9]*$ ]] || die "usage: $0 loops N CMD... | quota PERCENT CMD..."
how=$1 amount=$2
shift 2

loops=()
group=
tidy() {
	if [ ${#loops[@]} -gt 0 ]; then
		kill "${loops[@]}" 2>/dev/null || true
		wait "${loops[@]}" 2>/dev/null || true
	fi
	[ -z "$group" ] || leave
}
# leave moves what is still in the cgroup to its parent, and removes it with all
# that the command has made below it.
leave() {
	local dir pid
	while read -r dir; do
		while read -r pid; do
			echo "$pid" >"$(dirname "$group")/cgroup.procs" 2>/dev/null || true
		done <"$dir/cgroup.procs"
		rmdir "$dir" || true
	done < <(find "$group" -depth -type d)
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

case $how in
loops)
	for ((i = 0; i < amount; i++)); do
		(trap - EXIT; exec bash -c 'while :; do :; done') &
		loops+=($!)
	done
	;;
quota)
	quota=$((100000 * $(nproc) * amount / 100))
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		echo +cpu >/sys/fs/cgroup/cgroup.subtree_control || die "the cpu controller cannot be handed down"
		group=/sys/fs/cgroup/lark-slowly-$$
		mkdir "$group"
		echo "$quota 100000" >"$group/cpu.max"
	else
		cpu=$(awk '$3 == "cgroup" && $4 ~ /(^|,)cpu(,|$)/ {print $2; exit}' /proc/mounts)
		[ -n "$cpu" ] || die "no cpu controller is mounted"
		group=$cpu/lark-slowly-$$
		mkdir "$group"
		echo "$quota" >"$group/cpu.cfs_quota_us"
	fi
	;;
*) die "$how is neither loops nor quota" ;;
esac

# In the background, so that a signal to this script is taken while it runs.
if [ -n "$group" ]; then
	(trap - EXIT; echo "$BASHPID" >"$group/cgroup.procs" && exec "$@") <&0 &
else
	(trap - EXIT; exec "$@") <&0 &
fi
command=$!
trap 'kill -INT $command; exit 130' INT
trap 'kill $command; exit 143' TERM
wait "$command"
