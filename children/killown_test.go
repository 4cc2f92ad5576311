package children

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// F03: of two trees in one cgroup one is killed, to the last process; the other
// stays, and what belongs to neither is counted.
func TestF03KillOwn(t *testing.T) {
	o := owner(t, kernel{})
	for _, controller := range []string{"pids", "v2"} {
		dirs := cgroups(t, controller)
		if len(dirs) == 0 {
			continue
		}
		dir := dirs[0]
		own, other, third := fedTree(t, o, dir), fedTree(t, o, dir), fedTree(t, o, dir)
		began, err := o.StartOf(own.Pid())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// A number that another process has now proves nothing.
		strangers, err := o.KillOwn(ctx, dir, Belongings{Init: own.Pid(), Start: began + 1, Others: []int{other.Pid()}})
		if err != nil || strangers != 2*treeSize {
			t.Errorf("%s: another start: %d strangers, %v", controller, strangers, err)
		}
		strangers, err = o.KillOwn(ctx, dir, Belongings{Init: own.Pid(), Start: began, Others: []int{other.Pid()}})
		if err != nil || strangers != treeSize {
			t.Errorf("%s: %d strangers, want those of the third tree, %v", controller, strangers, err)
		}
		if exit, err := own.Wait(ctx); err != nil || exit.Status != 137 {
			t.Errorf("%s: %+v, %v", controller, exit, err)
		}
		left, err := o.cgroupProcs(dir)
		if err != nil || len(left) != 2*treeSize {
			t.Errorf("%s: left are %v, %v", controller, left, err)
		}
		// What this program has adopted counts as the container's if that is
		// said.
		strangers, err = o.KillOwn(ctx, dir, Belongings{Others: []int{other.Pid()}, Adopted: true})
		if err != nil || strangers != 0 {
			t.Errorf("%s: adopted: %d strangers, %v", controller, strangers, err)
		}
		if left, err = o.cgroupProcs(dir); err != nil || len(left) != treeSize {
			t.Errorf("%s: left are %v, %v", controller, left, err)
		}
		_, _ = third.Wait(ctx)
	}
}

// treeSize is how many processes fedTree makes.
const treeSize = 4

// fedTree starts a tree of processes in a cgroup.
func fedTree(t *testing.T, o *Owner, dir string) *Process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command("sh", "-c", "read _; (sleep 1000 & sleep 1000 & wait) & wait")
	cmd.Stdin = r
	p, err := o.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.KillTree(nil)
		_, _ = p.Wait(context.Background())
	})
	before, err := o.cgroupProcs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(p.Pid())), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tree has grown", func() string {
		pids, err := o.cgroupProcs(dir)
		if err != nil || len(pids) != len(before)+treeSize {
			return strconv.Itoa(len(pids))
		}
		return ""
	})
	return p
}
