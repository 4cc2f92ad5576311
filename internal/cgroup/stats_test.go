package cgroup

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/api/wire"
	"github.com/larkshim/lark/internal/errno"
)

// decode does what a client of containerd does with the answer of Stats.
func decode[M proto.Message](t *testing.T, g Group) M {
	t.Helper()
	a, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := v.(M)
	if !ok {
		t.Fatalf("%T", v)
	}
	return m
}

// The real hierarchies of version 1: what is known beforehand, and what the files say of a group that has come to rest.
func TestStatsV1(t *testing.T) {
	h := legacy(t)
	g := realGroup(t, h, "cpu", "cpuacct", "memory", "pids", "blkio", "freezer")
	cmd := exec.Command("/bin/sh", "-c", `read x; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done`)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	for _, c := range []string{"cpu", "cpuacct", "memory", "pids", "blkio"} {
		must(t, os.WriteFile(filepath.Join(g.Dir(c), "cgroup.procs"), []byte(itoa(cmd.Process.Pid)), 0))
	}
	must(t, os.WriteFile(filepath.Join(g.Dir("pids"), "pids.max"), []byte("77"), 0))
	must(t, os.WriteFile(filepath.Join(g.Dir("memory"), "memory.limit_in_bytes"), []byte("1073741824"), 0))
	if p := decode[*stats1.Metrics](t, g).Pids; p.Current != 1 || p.Limit != 77 {
		t.Errorf("pids: %v", p)
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	got := decode[*stats1.Metrics](t, g)
	raw := func(c, name string) uint64 {
		b, err := os.ReadFile(filepath.Join(g.Dir(c), name))
		must(t, err)
		n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		must(t, err)
		return n
	}
	var sum uint64
	for _, n := range got.CPU.Usage.PerCPU {
		sum += n
	}
	if got.CPU.Usage.Total == 0 || got.CPU.Usage.Total != raw("cpuacct", "cpuacct.usage") || sum != got.CPU.Usage.Total {
		t.Errorf("cpu: %v", got.CPU.Usage)
	}
	if m := got.Memory; m.Usage.Limit != 1<<30 || m.Usage.Max != raw("memory", "memory.max_usage_in_bytes") || m.HierarchicalMemoryLimit != 1<<30 || m.Swap == nil || m.Kernel == nil || m.KernelTCP == nil {
		t.Errorf("memory: %v", m)
	}
	if got.Pids.Current != 0 || got.Blkio == nil || got.CPU.Throttling == nil || got.MemoryOomControl == nil {
		t.Errorf("%v", prototext.Format(got))
	}
	must(t, g.Remove())
	if _, err := g.Stats(); !errno.IsMissing(err) {
		t.Errorf("row 57, the group is gone: %v", err)
	}
}

// statsV2 is what containerd's own reader (cgroups/v3 3.1.3) makes of the files in TestStatsV2AsUpstream.
const statsV2 = `pids:{current:12  limit:18446744073709551615}  cpu:{usage_usec:100  user_usec:60  system_usec:40  nr_periods:5  nr_throttled:2  throttled_usec:300  psi:{some:{avg10:1.5  avg60:0.25  total:12345}  full:{avg300:0.1  total:54321}}  nr_bursts:1  burst_usec:9}  memory:{anon:4096  file:8192  kernel_stack:1  slab:2  sock:3  shmem:4  file_mapped:5  file_dirty:6  file_writeback:7  anon_thp:8  inactive_anon:9  active_anon:10  inactive_file:11  active_file:12  unevictable:13  slab_reclaimable:14  slab_unreclaimable:15  pgfault:16  pgmajfault:17  workingset_refault:18  workingset_activate:19  workingset_nodereclaim:20  pgrefill:21  pgscan:22  pgsteal:23  pgactivate:24  pgdeactivate:25  pglazyfree:26  pglazyfreed:27  thp_fault_alloc:28  thp_collapse_alloc:29  usage:1000  usage_limit:18446744073709551615  swap_usage:30  swap_limit:40  max_usage:2000  swap_max_usage:50  psi:{some:{total:7}  full:{}}}  rdma:{current:{device:"mlx5_0"  hca_handles:1  hca_objects:2}  limit:{device:"mlx5_0"  hca_handles:3  hca_objects:4294967295}}  io:{usage:{major:8  rbytes:100  wbytes:200  rios:3  wios:4}  usage:{major:254  minor:16  wbytes:1  wios:1}  psi:{some:{total:1}  full:{total:2}}}  memory_events:{low:1  high:2  max:3  oom:4  oom_kill:5  oom_group_kill:6}`

// A version 2 group of files, with everything that a kernel can offer, read as containerd's
// own reader does.
func TestStatsV2AsUpstream(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.mkdir("hugepages/hugepages-2048kB")
	for name, content := range map[string]string{
		"pids.current": "12\n", "pids.max": "max\n",
		"cpu.stat":       "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 5\nnr_throttled 2\nthrottled_usec 300\nnr_bursts 1\nburst_usec 9\ncore_sched.force_idle_usec 0\n",
		"cpu.pressure":   "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.00 avg300=0.10 total=54321\n",
		"memory.stat":    "anon 4096\nfile 8192\nkernel_stack 1\nslab 2\nsock 3\nshmem 4\nfile_mapped 5\nfile_dirty 6\nfile_writeback 7\nanon_thp 8\ninactive_anon 9\nactive_anon 10\ninactive_file 11\nactive_file 12\nunevictable 13\nslab_reclaimable 14\nslab_unreclaimable 15\npgfault 16\npgmajfault 17\nworkingset_refault 18\nworkingset_activate 19\nworkingset_nodereclaim 20\npgrefill 21\npgscan 22\npgsteal 23\npgactivate 24\npgdeactivate 25\npglazyfree 26\npglazyfreed 27\nthp_fault_alloc 28\nthp_collapse_alloc 29\nsomething_new 30\n",
		"memory.events":  "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
		"memory.current": "1000\n", "memory.max": "max\n", "memory.peak": "2000\n",
		"memory.swap.current": "30\n", "memory.swap.max": "40\n", "memory.swap.peak": "50\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"io.stat":         "8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=5 dios=6\n254:16 rbytes=0 wbytes=1 rios=0 wios=1 dbytes=0 dios=0\nbad line\n",
		"io.pressure":     "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
		"rdma.current":    "mlx5_0 hca_handle=1 hca_object=2\n", "rdma.max": "mlx5_0 hca_handle=3 hca_object=max\n",
	} {
		f.write("cgroup/c/"+name, content)
	}
	f.process("42", "0::/c\n", "S")
	g, err := f.host().Of(42)
	must(t, err)
	got := decode[*stats2.Metrics](t, g)
	want := &stats2.Metrics{}
	must(t, prototext.Unmarshal([]byte(statsV2), want))
	got.Hugetlb = nil // below
	if !proto.Equal(got, want) {
		t.Errorf("got %v\nwant %v", prototext.Format(got), prototext.Format(want))
	}
	if got.Memory.UsageLimit != math.MaxUint64 || got.Rdma.Limit[0].HcaObjects != math.MaxUint32 || got.CPU.PSI.Some.Avg10 != 1.5 {
		t.Errorf("%v", prototext.Format(got))
	}
	f.write("cgroup/c/hugetlb.2MB.current", "1\n")
	f.write("cgroup/c/hugetlb.2MB.max", "max\n")
	f.write("cgroup/c/hugetlb.2MB.events", "max 3\n")
	if h := decode[*stats2.Metrics](t, g).Hugetlb; len(h) != 1 || h[0].Pagesize != "2MB" || h[0].Current != 1 || h[0].Max != math.MaxUint64 || h[0].Failcnt != 3 {
		t.Errorf("hugetlb: %v", h)
	}
	must(t, os.RemoveAll(filepath.Join(f.cgfs, "c")))
	if _, err := g.Stats(); !errno.IsMissing(err) {
		t.Errorf("row 57, the group is gone: %v", err)
	}
}

// A group of version 1 made of files: the controllers that this machine has not, and lines that few machines have.
func TestStatsV1Fake(t *testing.T) {
	mounts := v1Mounts + "60 31 0:60 / CG/blkio rw - cgroup cgroup rw,blkio\n61 31 0:61 / CG/hugetlb rw - cgroup cgroup rw,hugetlb\n62 31 0:62 / CG/rdma rw - cgroup cgroup rw,rdma\n"
	f := newFake(t).layout(mounts, v1Self)
	f.mkdir("hugepages/hugepages-1048576kB")
	f.mkdir("hugepages/hugepages-64kB")
	f.mkdir("hugepages/other")
	f.write("proc/partitions", "major minor  #blocks  name\n\n   8        0  100 sda\n")
	for name, content := range map[string]string{
		"blkio/c/blkio.throttle.io_serviced":       "8:0 Read 3\n8:0 Write 4\n9:1 Total 5\nTotal 12\n",
		"blkio/c/blkio.throttle.io_service_bytes":  "8:0 Read 300\nTotal 300\n",
		"hugetlb/c/hugetlb.1GB.usage_in_bytes":     "1\n",
		"hugetlb/c/hugetlb.1GB.max_usage_in_bytes": "2\n",
		"hugetlb/c/hugetlb.1GB.failcnt":            "3\n",
		"rdma/c/rdma.current":                      "a hca_handle=1 hca_object=2\nshort line\n",
		"rdma/c/rdma.max":                          "a hca_handle=max hca_object=4\n",
		"memory/c/memory.stat":                     "cache 5\nrss 18446744073709551616\n",
		"memory/c/memory.oom_control":              "oom_kill_disable 1\nunder_oom 1\noom_kill 2\n",
		"cpu,cpuacct/c/cpuacct.stat":               "user 3\nsystem 4\n",
		"cpu,cpuacct/c/cpuacct.usage_percpu":       "1 2 \n",
	} {
		f.write("cgroup/"+name, content)
	}
	f.process("42", all("/c")+"6:blkio:/c\n7:hugetlb:/c\n8:rdma:/c\n", "S")
	g, err := f.host().Of(42)
	must(t, err)
	got := decode[*stats1.Metrics](t, g)
	if h := got.Hugetlb; len(h) != 2 || h[0].Pagesize != "1GB" || h[0].Usage != 1 || h[0].Max != 2 || h[0].Failcnt != 3 || h[1].Pagesize != "64KB" {
		t.Errorf("hugetlb: %v", h)
	}
	if b := got.Blkio; len(b.IoServicedRecursive) != 3 || b.IoServicedRecursive[0].Device != "/dev/sda" || b.IoServicedRecursive[1].Op != "Write" || b.IoServicedRecursive[2].Minor != 1 || b.IoServiceBytesRecursive[0].Value != 300 {
		t.Errorf("blkio: %v", b)
	}
	if r := got.Rdma; len(r.Current) != 1 || r.Limit[0].HcaHandles != math.MaxUint32 || r.Limit[0].HcaObjects != 4 {
		t.Errorf("rdma: %v", r)
	}
	if got.Memory.Cache != 5 || got.Memory.RSS != 0 || got.MemoryOomControl.OomKill != 2 || got.Memory.Swap == nil {
		t.Errorf("memory: %v %v", got.Memory, got.MemoryOomControl)
	}
	if u := got.CPU.Usage; u.User != 3e7 || u.Kernel != 4e7 || len(u.PerCPU) != 2 || got.CPU.Throttling == nil {
		t.Errorf("cpu: %v", got.CPU)
	}
}

// A file that is there and cannot be read is an error, not a zero.
func TestRow57StatsUnreadable(t *testing.T) {
	sys := kernel()
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/c/pids.current", "1")
	f.process("42", "0::/c\n", "S")
	g, err := f.hostWith(sys).Of(42)
	must(t, err)
	plain := sys.open
	for errno, class := range map[error]func(error) bool{unix.EMFILE: errdefs.IsResourceExhausted, unix.EACCES: errdefs.IsPermissionDenied} {
		sys.open = func(p string, flags int) (int, error) {
			if strings.HasSuffix(p, "memory.stat") {
				return -1, errno
			}
			return plain(p, flags)
		}
		if _, err := g.Stats(); !class(err) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}

func BenchmarkStatsV1(b *testing.B) {
	h, err := NewHost()
	if err != nil || h.unified {
		b.Skip("needs cgroup version 1")
	}
	g, err := h.Of(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := g.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}

// A name that is not UTF-8 is an error: no client could decode the message.
func TestStatsNotUTF8(t *testing.T) {
	f := newFake(t).layout(v2Mounts, "0::/shim\n")
	f.write("cgroup/c/rdma.current", "\xff hca_handle=1 hca_object=2\n")
	f.process("42", "0::/c\n", "S")
	g, err := f.host().Of(42)
	must(t, err)
	if a, err := g.Stats(); !errors.Is(err, wire.ErrUTF8) {
		t.Errorf("%v, %v", a, err)
	}
}
