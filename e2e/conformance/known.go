package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/larkshim/lark/e2e/suite/gotest"
)

// reasons say why tests of containerd's suite fail whatever the shim, by the beginnings of their names. A reason holds
// only where the test's output shows it, with either shim. A test that fails with both and has no reason here fails the
// run: somebody has to find out why and write it down.
var reasons = []struct{ prefix, shown, why string }{
	{"TestCheckpoint", "criu failed: type DUMP", "CRIU itself cannot dump here (CRIU 3.17 on Linux 6.18 cannot)"},
	{"TestExportAllCases", "busybox@sha256:7b3ccabffc97", "one of its cases pulls a published image by its digest, which no image made here can have"},
}

// reasonFor is the reason for which a test fails with all of these results, if it is known.
func reasonFor(test string, results ...gotest.Result) string {
	for _, r := range reasons {
		shown := func(result gotest.Result) bool {
			return slices.ContainsFunc(result.Output, func(line string) bool { return strings.Contains(line, r.shown) })
		}
		if strings.HasPrefix(test, r.prefix) && !slices.ContainsFunc(results, func(result gotest.Result) bool { return !shown(result) }) {
			return r.why
		}
	}
	return ""
}

// shimless are tests that start no container: what fails there is no shim's doing. Some of them fail now and then
// (TestContentClient, when containerd collects garbage meanwhile), so they are given up only after several tries, where
// every other test has one.
var shimless = regexp.MustCompile(`^Test(ClientTTRPC|Content|Convert|Export|Image|Import|Lease|Migration|PullFetch|Snapshotter|Transfer)`)

const shimlessTries = 3
