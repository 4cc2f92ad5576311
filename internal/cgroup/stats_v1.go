package cgroup

import (
	"bytes"
	"strings"

	"github.com/larkshim/lark/internal/api/wire"
)

// The fields of version 1's messages. What a table does not name, a client of containerd has never seen.
var (
	throttleV1 = []named{{"nr_periods", 1}, {"nr_throttled", 2}, {"throttled_time", 3}}
	memoryV1   = []named{
		{"cache", 1}, {"rss", 2}, {"rss_huge", 3}, {"mapped_file", 4}, {"dirty", 5}, {"writeback", 6},
		{"pgpgin", 7}, {"pgpgout", 8}, {"pgfault", 9}, {"pgmajfault", 10}, {"inactive_anon", 11},
		{"active_anon", 12}, {"inactive_file", 13}, {"active_file", 14}, {"unevictable", 15},
		{"hierarchical_memory_limit", 16}, {"hierarchical_memsw_limit", 17}, {"total_cache", 18},
		{"total_rss", 19}, {"total_rss_huge", 20}, {"total_mapped_file", 21}, {"total_dirty", 22},
		{"total_writeback", 23}, {"total_pgpgin", 24}, {"total_pgpgout", 25}, {"total_pgfault", 26},
		{"total_pgmajfault", 27}, {"total_inactive_anon", 28}, {"total_active_anon", 29},
		{"total_inactive_file", 30}, {"total_active_file", 31}, {"total_unevictable", 32},
	}
	memoryEntriesV1 = []named{{"memory.", 33}, {"memory.memsw.", 34}, {"memory.kmem.", 35}, {"memory.kmem.tcp.", 36}}
	oomControlV1    = []named{{"oom_kill_disable", 1}, {"under_oom", 2}, {"oom_kill", 3}}

	// CFQ's counters, gone with Linux 5.0, and those that every scheduler has.
	blkioCFQ = []named{
		{"io_service_bytes_recursive", 1}, {"io_serviced_recursive", 2}, {"io_queued_recursive", 3},
		{"io_service_time_recursive", 4}, {"io_wait_time_recursive", 5}, {"io_merged_recursive", 6},
		{"time_recursive", 7}, {"sectors_recursive", 8},
	}
	blkioThrottle = []named{{"throttle.io_service_bytes", 1}, {"throttle.io_serviced", 2}}
)

// ticksPerSecond is USER_HZ, in which cpuacct.stat counts: 100 on every architecture that Go runs on (times(2)).
const ticksPerSecond = 100

func (g Group) metricsV1(r *reader, m *wire.Encoder) {
	if dir := g.Dir("hugetlb"); dir != "" {
		for _, size := range g.host.hugepages {
			var h wire.Encoder
			h.Uint(1, r.number(dir, "hugetlb."+size+".usage_in_bytes"))
			h.Uint(2, r.number(dir, "hugetlb."+size+".max_usage_in_bytes"))
			h.Uint(3, r.number(dir, "hugetlb."+size+".failcnt"))
			h.String(4, size)
			m.Nested(1, h)
		}
	}
	if dir := g.Dir("pids"); dir != "" {
		var p wire.Encoder
		p.Uint(1, r.number(dir, "pids.current"))
		p.Uint(2, r.number(dir, "pids.max"))
		m.Nested(2, p)
	}
	m.Nested(3, g.cpuV1(r))
	if dir := g.Dir("memory"); dir != "" {
		m.Nested(4, memoryOfV1(r, dir))
		var oom wire.Encoder
		r.table(&oom, dir, "memory.oom_control", oomControlV1)
		m.Nested(9, oom)
	}
	if dir := g.Dir("blkio"); dir != "" {
		m.Nested(5, g.blkioV1(r, dir))
	}
	if dir := g.Dir("rdma"); dir != "" {
		var e wire.Encoder
		r.rdma(&e, 1, dir, "rdma.current")
		r.rdma(&e, 2, dir, "rdma.max")
		m.Nested(6, e)
	}
}

// cpuV1 has both parts always, as clients look into them without asking.
func (g Group) cpuV1(r *reader) wire.Encoder {
	var usage, throttling, cpu wire.Encoder
	dir := g.Dir("cpuacct")
	usage.Uint(1, r.number(dir, "cpuacct.usage"))
	var ticks [2]uint64
	stat := r.file(dir, "cpuacct.stat")
	ticks[0], ticks[1] = field(stat, "system"), field(stat, "user")
	for i, t := range ticks {
		usage.Uint(2+i, t*(1e9/ticksPerSecond))
	}
	var per []uint64
	for f := range bytes.FieldsSeq(r.file(dir, "cpuacct.usage_percpu")) {
		per = append(per, number(f))
	}
	wire.AppendPacked(&usage, 4, per)
	r.table(&throttling, g.Dir("cpu"), "cpu.stat", throttleV1)
	cpu.Nested(1, usage)
	cpu.Nested(2, throttling)
	return cpu
}

func memoryOfV1(r *reader, dir string) wire.Encoder {
	var m wire.Encoder
	r.table(&m, dir, "memory.stat", memoryV1)
	for _, e := range memoryEntriesV1 {
		var entry wire.Encoder
		entry.Uint(1, r.number(dir, e.key+"limit_in_bytes"))
		entry.Uint(2, r.number(dir, e.key+"usage_in_bytes"))
		entry.Uint(3, r.number(dir, e.key+"max_usage_in_bytes"))
		entry.Uint(4, r.number(dir, e.key+"failcnt"))
		m.Nested(e.field, entry)
	}
	return m
}

// blkioV1 takes CFQ's counters where they have anything, else the throttling layer's.
func (g Group) blkioV1(r *reader, dir string) wire.Encoder {
	devices := g.host.devices(r)
	var m wire.Encoder
	for _, set := range [][]named{blkioCFQ, blkioThrottle} {
		for _, f := range set {
			blkioEntries(r, &m, f, dir, devices)
		}
		if m.Len() > 0 {
			break
		}
	}
	return m
}

// blkioEntries reads lines "major:minor [operation] value", and a "Total value" that is left out.
func blkioEntries(r *reader, m *wire.Encoder, f named, dir string, devices map[string]string) {
	for line := range bytes.Lines(r.file(dir, "blkio."+f.key)) {
		w := strings.Fields(string(line))
		if len(w) < 2 {
			continue
		}
		major, minor, ok := strings.Cut(w[0], ":")
		if !ok {
			continue
		}
		var e wire.Encoder
		if len(w) > 2 {
			e.String(1, w[1])
		}
		e.String(2, devices[w[0]])
		e.Uint(3, number([]byte(major)))
		e.Uint(4, number([]byte(minor)))
		e.Uint(5, number([]byte(w[len(w)-1])))
		m.Nested(f.field, e)
	}
}

// devices names block devices, from /proc/partitions ("major minor #blocks name").
func (h *Host) devices(r *reader) map[string]string {
	names := make(map[string]string)
	any := r.any // this file says nothing about the group
	for line := range bytes.Lines(r.file(h.proc, "partitions")) {
		f := strings.Fields(string(line))
		if len(f) != 4 || f[0] == "major" {
			continue
		}
		if key := f[0] + ":" + f[1]; names[key] == "" {
			names[key] = "/dev/" + f[3]
		}
	}
	r.any = any
	return names
}
