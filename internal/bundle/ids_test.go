package bundle

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

// The rule as containerd states it (pkg/identifiers).
var containerdRule = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$`)

func TestRow01IdentifiersRefuse(t *testing.T) { // row 1
	bad := map[string]string{
		"empty": "", "too long": strings.Repeat("a", 77), "slash": "a/b", "backslash": `a\b`,
		"NUL": "a\x00b", "newline": "a\n", "space": "a b", "leading dot": ".a", "leading dash": "-a",
		"dot dot": "..", "traversal": "../../etc/cron.d/x", "double separator": "a--b", "trailing": "a-",
		"cyrillic a": "\u0430bc", "fullwidth": "\uff41", "invalid UTF-8": "a\xff",
	}
	for name, id := range bad {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseContainerID(id); !errdefs.IsInvalidArgument(err) || got.String() != "" {
				t.Errorf("ParseContainerID(%q) = %q, %v", id, got, err)
			}
			if got, err := ParseExecID(id); !errdefs.IsInvalidArgument(err) || !got.IsInit() {
				t.Errorf("ParseExecID(%q) = %q, %v", id, got, err)
			}
			if _, err := ParseNamespace(id); !errdefs.IsInvalidArgument(err) {
				t.Errorf("ParseNamespace(%q): %v", id, err)
			}
		})
	}
}

func TestIdentifiersAreContainerds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.StringMatching(`[A-Za-z0-9._\-]{0,80}`),
			rapid.StringMatching(`[A-Za-z0-9]{1,20}([._\-][A-Za-z0-9]{1,10}){0,6}`),
			rapid.String(),
		).Draw(t, "id")
		want := len(s) <= 76 && containerdRule.MatchString(s) && !strings.HasSuffix(s, "\n")
		id, err := ParseContainerID(s)
		if (err == nil) != want {
			t.Fatalf("ParseContainerID(%q): %v, containerd says %v", s, err, want)
		}
		if err == nil && id.String() != s {
			t.Fatalf("ParseContainerID(%q) became %q", s, id)
		}
	})
}

// An exec's pid file is in the bundle, is no other exec's, and is no other file
// (row 2, R4).
func TestRow02ExecPIDFilesNeverCollide(t *testing.T) {
	taken := map[string]string{}
	for _, f := range []string{specFile, optionsFile, runtimeFile, exitFile, initPIDFile, logFile, rootfsDir, workDir,
		"log", "address", "bootstrap.json", "shim-binary-path", "sandbox", "s", "exitstatus.json"} {
		taken[f] = "a file of the bundle"
	}
	for _, s := range []string{"init", "config", "log", "exec-init", "init.pid", "exit.json", "exec-exec-1", "1", "options.json", "A", "a"} {
		id, err := ParseExecID(s)
		if err != nil {
			t.Fatal(err)
		}
		name := id.pidFile()
		if owner, ok := taken[name]; ok {
			t.Errorf("exec %q has the pid file %s of %s", s, name, owner)
		}
		taken[name] = s
	}
	rapid.Check(t, func(t *rapid.T) {
		id, err := ParseExecID(rapid.String().Draw(t, "exec id"))
		if err != nil {
			return
		}
		if name := id.pidFile(); filepath.Base(name) != name || !strings.HasPrefix(name, execPIDPrefix) {
			t.Fatalf("exec %q has the pid file %q", id, name)
		}
	})
}
