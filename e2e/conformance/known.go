package main

import (
	"regexp"
	"strings"
)

// reasons say why tests of containerd's suite fail whatever the shim, by the beginnings of their names. A test that fails
// with both shims and is not here fails the run: somebody has to find out why and write it down.
var reasons = []struct{ prefix, why string }{
	{"TestCheckpoint", "CRIU itself cannot dump here (CRIU 3.17 on Linux 6.18 cannot; its log says why)"},
	{"TestExportAllCases", "one of its cases pulls a published image by its digest, which no image made here can have"},
}

func reasonFor(test string) string {
	for _, r := range reasons {
		if strings.HasPrefix(test, r.prefix) {
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
