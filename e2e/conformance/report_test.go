package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larkshim/lark/e2e/suite/gotest"
)

func TestJudge(t *testing.T) {
	const known, unknown = "TestCheckpointRestore", "TestSomethingElse"
	failed := func(subtests ...string) gotest.Result {
		return gotest.Result{Outcome: gotest.Fail, FailedSubtests: subtests, Output: []string{"x: criu failed: type DUMP errno 0"}}
	}
	otherwise := gotest.Result{Outcome: gotest.Fail, Output: []string{"checkpoint: not implemented"}}
	pass, skip := gotest.Result{Outcome: gotest.Pass}, gotest.Result{Outcome: gotest.Skip}
	hang, crash := gotest.Result{Outcome: gotest.Hang}, gotest.Result{Outcome: gotest.Crash}
	for _, c := range []struct {
		test              string
		upstream, subject gotest.Result
		want              verdict
	}{
		{unknown, pass, pass, fine},
		{unknown, skip, skip, fine},
		{unknown, pass, failed(), behind},
		{unknown, pass, skip, behind},
		{unknown, pass, hang, behind},
		{unknown, pass, gotest.Result{}, behind}, // never ran
		{known, pass, failed(), behind},
		{unknown, failed(), pass, ahead},
		{unknown, hang, pass, ahead},
		{known, failed(), failed(), neither},
		{known, failed("a"), failed("a"), neither},
		{known, failed("a"), failed("a", "b"), behind},
		{known, failed(), crash, behind},
		{known, crash, crash, obscure},
		{known, failed(), otherwise, obscure},
		{unknown, failed(), failed(), obscure},
	} {
		if got := judge(c.test, c.upstream, c.subject); got != c.want {
			t.Errorf("%s: upstream %s, subject %s: %d, want %d", c.test, c.upstream.Outcome, c.subject.Outcome, got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	tests := []string{"TestA", "TestB"}
	columnOf := func(title string, a, b gotest.Outcome) *column {
		return &column{Title: title, results: map[string]gotest.Result{
			"TestA": {Outcome: a},
			"TestB": {Outcome: b, Output: []string{"why it failed"}},
		}}
	}
	t.Run("behind under one name", func(t *testing.T) {
		logs := t.TempDir()
		var out bytes.Buffer
		err := report(&out, logs, tests, []*column{
			columnOf("upstream", gotest.Pass, gotest.Pass), columnOf("as lark.v2", gotest.Pass, gotest.Pass), columnOf("as runc.v2", gotest.Pass, gotest.Fail),
		})
		if err == nil || !strings.Contains(err.Error(), "TestB: as runc.v2 FAIL, upstream pass") || strings.Contains(err.Error(), "TestA") {
			t.Errorf("error %v", err)
		}
		written, err := os.ReadFile(filepath.Join(logs, "client-as-runc.v2-TestB.txt"))
		if err != nil || string(written) != "why it failed\n" {
			t.Errorf("log %q, %v", written, err)
		}
	})
	t.Run("nowhere behind", func(t *testing.T) {
		var out bytes.Buffer
		all := []*column{columnOf("upstream", gotest.Pass, gotest.Fail), columnOf("as lark.v2", gotest.Pass, gotest.Pass)}
		if err := report(&out, t.TempDir(), tests, all); err != nil {
			t.Error(err)
		}
		for _, wanted := range []string{"1 pass, 1 FAIL", "2 pass", "passes only with the shim tested: TestB"} {
			if !strings.Contains(out.String(), wanted) {
				t.Errorf("%q is not in\n%s", wanted, &out)
			}
		}
	})
}

func TestGroups(t *testing.T) {
	got := groups([]string{"TestA", "TestCheckpointB", "TestC"})
	if len(got) != 2 || len(got[0]) != 2 || len(got[1]) != 1 || got[1][0] != "TestCheckpointB" {
		t.Errorf("groups %v", got)
	}
	if got := groups([]string{"TestCheckpointB"}); len(got) != 1 {
		t.Errorf("groups %v, want one", got)
	}
}
