package tempdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParents(t *testing.T) {
	for tmp, want := range map[string][]string{
		"":          {"/x", "/tmp", "/run"},
		"/var/tmp/": {"/x", "/var/tmp", "/tmp", "/run"},
		"/tmp":      {"/x", "/tmp", "/run"},
		"relative":  {"/x", "/tmp", "/run"},
		"/x":        {"/x", "/tmp", "/run"},
	} {
		t.Setenv("TMPDIR", tmp)
		if got := Parents("", "relative", "/x"); !slices.Equal(got, want) {
			t.Errorf("TMPDIR=%s: %v, want %v", tmp, got, want)
		}
	}
}

// F10: a directory that TMPDIR names and that is gone has a second choice.
func TestF10TMPDIRIsGone(t *testing.T) {
	there := t.TempDir()
	file := filepath.Join(there, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for tmp, want := range map[string]string{there: there, filepath.Join(there, "gone"): "/tmp", file: "/tmp"} {
		t.Setenv("TMPDIR", tmp)
		dir, err := Make("lark-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
		if st, err := os.Stat(dir); err != nil || filepath.Dir(dir) != want || st.Mode() != fs.ModeDir|0o700 {
			t.Errorf("TMPDIR=%s: %s, %v, %v", tmp, dir, st, err)
		}
	}
}

func TestFirst(t *testing.T) {
	errs := map[string]error{"/a": errors.New("a"), "/b": errors.New("b")}
	try := func(dir string) (string, error) { return dir, errs[dir] }
	if got, err := First([]string{"/a", "/c", "/b"}, try); got != "/c" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := First([]string{"/a", "/b"}, try); !errors.Is(err, errs["/a"]) || !errors.Is(err, errs["/b"]) {
		t.Errorf("%v", err)
	}
}
