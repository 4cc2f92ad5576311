package stdio

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]target{
		"":                                   {},
		"/run/a%zz?b":                        {kind: kindPath, path: "/run/a%zz?b"},
		"fifo:///run/a%20b":                  {kind: kindFIFO, path: "/run/a b"},
		"file:///var/log/x":                  {kind: kindFile, path: "/var/log/x"},
		"binary:///bin/l":                    {kind: kindLogger, path: "/bin/l"},
		"binary-v2:///bin/l?b=1&a&b=2&c=%26": {kind: kindLoggerV2, path: "/bin/l", args: []string{"b", "1", "a", "", "c", "&"}},
	} {
		got, err := parseTarget(text)
		if err != nil || got.kind != want.kind || got.path != want.path || !slices.Equal(got.args, want.args) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func FuzzStdioURI(f *testing.F) {
	for _, s := range []string{
		"", "/", "/run/x", "fifo:///x", "file:///x", "file://x/y", "binary:///x?a=b&c", "binary-v2:///x?%", "binary:x",
		"x://y", "://", "fifo://%00", "file:///%2e%2e/x", "binary://u:p@/x", "FIFO:///x", "a\x00b", "fifo:///x#f",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if got.kind == kindNone {
			if s != "" {
				t.Errorf("%q is taken as nothing", s)
			}
			return
		}
		if !filepath.IsAbs(got.path) || strings.ContainsRune(got.path+strings.Join(got.args, ""), 0) {
			t.Errorf("%q is taken as %+v", s, got)
		}
		if !got.logger() && got.args != nil || len(got.args)%2 != 0 {
			t.Errorf("%q has arguments %q", s, got.args)
		}
	})
}
