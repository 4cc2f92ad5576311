package cgroup

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/larkshim/lark/internal/errno"
)

// Pids lists the processes of the group and of the groups below it, in ascending order, as pids of the shim's pid
// namespace. It is one reading per group: a process that forks or moves meanwhile may be missed or listed still.
//
// Errors: errno.ErrMissing if there is no group of the container's own, or not any more.
func (g Group) Pids() ([]int, error) {
	dir := g.KillDir()
	if dir == "" {
		return nil, errno.Missing("no cgroup to list")
	}
	pids, err := g.host.pidsIn(nil, dir)
	if err != nil {
		return nil, fmt.Errorf("listing cgroup %s: %w", dir, classed(err))
	}
	below, err := g.host.groupsBelow(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range below {
		// One that has gone since had nobody in it.
		if pids, err = g.host.pidsIn(pids, d); err != nil && !gone(err) {
			return nil, fmt.Errorf("listing cgroup %s: %w", d, classed(err))
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// pidsIn appends the processes of one group. Pid 0 stands for those that this pid namespace cannot see.
func (h *Host) pidsIn(pids []int, dir string) ([]int, error) {
	b, err := h.sys.readFile(path.Join(dir, "cgroup.procs"))
	if err != nil {
		return pids, err
	}
	for line := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
