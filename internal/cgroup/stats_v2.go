package cgroup

import (
	"bytes"
	"strconv"

	"github.com/larkshim/lark/internal/api/wire"
)

// The fields of version 2's messages.
var (
	cpuV2 = []named{
		{"usage_usec", 1}, {"user_usec", 2}, {"system_usec", 3}, {"nr_periods", 4}, {"nr_throttled", 5},
		{"throttled_usec", 6}, {"nr_bursts", 8}, {"burst_usec", 9},
	}
	memoryV2 = []named{
		{"anon", 1}, {"file", 2}, {"kernel_stack", 3}, {"slab", 4}, {"sock", 5}, {"shmem", 6}, {"file_mapped", 7},
		{"file_dirty", 8}, {"file_writeback", 9}, {"anon_thp", 10}, {"inactive_anon", 11}, {"active_anon", 12},
		{"inactive_file", 13}, {"active_file", 14}, {"unevictable", 15}, {"slab_reclaimable", 16},
		{"slab_unreclaimable", 17}, {"pgfault", 18}, {"pgmajfault", 19}, {"workingset_refault", 20},
		{"workingset_activate", 21}, {"workingset_nodereclaim", 22}, {"pgrefill", 23}, {"pgscan", 24},
		{"pgsteal", 25}, {"pgactivate", 26}, {"pgdeactivate", 27}, {"pglazyfree", 28}, {"pglazyfreed", 29},
		{"thp_fault_alloc", 30}, {"thp_collapse_alloc", 31},
	}
	memoryNumbersV2 = []named{
		{"memory.current", 32}, {"memory.max", 33}, {"memory.swap.current", 34}, {"memory.swap.max", 35},
		{"memory.peak", 36}, {"memory.swap.peak", 37},
	}
	eventsV2 = []named{{"low", 1}, {"high", 2}, {"max", 3}, {"oom", 4}, {"oom_kill", 5}, {"oom_group_kill", 6}}
	ioV2     = []named{{"rbytes", 3}, {"wbytes", 4}, {"rios", 5}, {"wios", 6}}
	psiV2    = []named{{"avg10", 1}, {"avg60", 2}, {"avg300", 3}}
)

func (g Group) metricsV2(r *reader, m *wire.Encoder) {
	dir := g.v2.dir
	var pids, cpu, memory, rdma, events wire.Encoder
	pids.Uint(1, r.number(dir, "pids.current"))
	pids.Uint(2, r.number(dir, "pids.max"))
	m.Nested(1, pids)

	r.table(&cpu, dir, "cpu.stat", cpuV2)
	r.pressure(&cpu, 7, dir, "cpu.pressure")
	m.Nested(2, cpu)

	r.table(&memory, dir, "memory.stat", memoryV2)
	for _, f := range memoryNumbersV2 {
		memory.Uint(f.field, r.number(dir, f.key))
	}
	r.pressure(&memory, 38, dir, "memory.pressure")
	m.Nested(4, memory)

	r.rdma(&rdma, 1, dir, "rdma.current")
	r.rdma(&rdma, 2, dir, "rdma.max")
	m.Nested(5, rdma)

	m.Nested(6, r.ioOfV2(dir))
	for _, size := range g.host.hugepages {
		var h wire.Encoder
		h.Uint(1, r.number(dir, "hugetlb."+size+".current"))
		h.Uint(2, r.number(dir, "hugetlb."+size+".max"))
		h.String(3, size)
		h.Uint(4, field(r.file(dir, "hugetlb."+size+".events"), "max"))
		m.Nested(7, h)
	}
	if b := r.file(dir, "memory.events"); len(b) > 0 {
		r.table(&events, dir, "memory.events", eventsV2)
		m.Nested(8, events)
	}
}

// ioOfV2 reads lines "major:minor rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N".
func (r *reader) ioOfV2(dir string) wire.Encoder {
	var io wire.Encoder
	for line := range bytes.Lines(r.file(dir, "io.stat")) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := bytes.Cut(f[0], []byte(":"))
		if !ok {
			continue
		}
		var e wire.Encoder
		e.Uint(1, number(major))
		e.Uint(2, number(minor))
		for _, kv := range f[1:] {
			k, v, _ := bytes.Cut(kv, []byte("="))
			for _, n := range ioV2 {
				if n.key == string(k) {
					e.Uint(n.field, number(v))
				}
			}
		}
		io.Nested(1, e)
	}
	r.pressure(&io, 2, dir, "io.pressure")
	return io
}

// pressure reads a PSI file, lines "some|full avg10=F avg60=F avg300=F total=N", as field n. It is absent where the
// kernel has no PSI, or answers EOPNOTSUPP where it was switched off.
func (r *reader) pressure(m *wire.Encoder, n int, dir, name string) {
	var psi wire.Encoder
	for line := range bytes.Lines(r.file(dir, name)) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		var data wire.Encoder
		for _, kv := range f[1:] {
			k, v, _ := bytes.Cut(kv, []byte("="))
			if string(k) == "total" {
				data.Uint(4, number(v))
				continue
			}
			for _, avg := range psiV2 {
				if avg.key != string(k) {
					continue
				}
				if x, err := strconv.ParseFloat(string(v), 64); err == nil {
					data.Double(avg.field, x)
				}
			}
		}
		switch string(f[0]) {
		case "some":
			psi.Nested(1, data)
		case "full":
			psi.Nested(2, data)
		}
	}
	if psi.Len() > 0 {
		m.Nested(n, psi)
	}
}
