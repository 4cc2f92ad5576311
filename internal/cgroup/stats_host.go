package cgroup

import (
	"slices"
	"strconv"
	"strings"
)

// hugepageSizes lists the machine's huge page sizes as the hugetlb files name them: "2MB", "1GB" (mem_fmt in the
// kernel's hugetlb_cgroup.c).
func hugepageSizes(sys *system, dir string) []string {
	entries, err := sys.readDir(dir)
	if err != nil {
		return nil // no huge pages
	}
	var sizes []string
	for _, e := range entries {
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		switch {
		case kb >= 1<<20:
			sizes = append(sizes, strconv.FormatUint(kb>>20, 10)+"GB")
		case kb >= 1<<10:
			sizes = append(sizes, strconv.FormatUint(kb>>10, 10)+"MB")
		default:
			sizes = append(sizes, strconv.FormatUint(kb, 10)+"KB")
		}
	}
	slices.Sort(sizes)
	return sizes
}
