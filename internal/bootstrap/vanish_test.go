package bootstrap

// F01: parts of the world are not there when delete runs, and there again for
// the next.

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larkshim/lark/internal/bundle"
	"github.com/larkshim/lark/internal/vanish"
)

func TestF01DeleteWhereTheWorldVanishes(t *testing.T) {
	runtime := func(w *wreck) string {
		o, err := w.b.ReadOptions()
		if err != nil {
			t.Fatal(err)
		}
		return o.BinaryName
	}
	for name, c := range map[string]struct {
		path func(w *wreck) string
		// left is what the first delete may leave, as parts of paths; it says
		// so.
		left []string
		// silent: all is done without it.
		silent bool
	}{
		"the runtime":             {runtime, []string{"r/ns/c1"}, false},
		"its directory":           {func(w *wreck) string { return filepath.Dir(runtime(w)) }, []string{"r/ns/c1"}, false},
		"the directory of states": {func(w *wreck) string { return filepath.Join(w.c.dir, "r/ns") }, []string{"r/ns/c1"}, false},
		"its own state":           {func(w *wreck) string { return filepath.Join(w.c.dir, "r/ns/c1") }, []string{"r/ns/c1"}, true},
		"config.json":             {func(w *wreck) string { return filepath.Join(w.c.bundle, "config.json") }, []string{"cgroup", "gone", "s/"}, false},
		"options.json":            {func(w *wreck) string { return filepath.Join(w.c.bundle, "options.json") }, []string{"r/ns/c1"}, false},
		"init.pid":                {func(w *wreck) string { return w.b.PIDPath(bundle.ExecID{}) }, nil, true},
		"the socket":              {func(w *wreck) string { return w.socket }, []string{"socket"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWreck(t, newDaemon(t))
			back := vanish.Path(name, c.path(w)).Away(t)
			first, said, err := w.delete()
			if err != nil || first.ExitStatus != killed {
				t.Errorf("the first delete: %v, %v", first, err)
			}
			if (said == "") != c.silent {
				t.Errorf("the first delete said %q", said)
			}
			left := w.left()
			for _, path := range left {
				may := false
				for _, part := range c.left {
					may = may || strings.Contains(path, part)
				}
				if !may {
					t.Errorf("left: %s", path)
				}
			}
			back()
			second, said, err := w.delete()
			if err != nil || said != "" || second.ExitStatus != killed || !second.ExitedAt.AsTime().Equal(first.ExitedAt.AsTime()) {
				t.Errorf("the second delete: %v, %v, %q; the first: %v", second, err, said, first)
			}
			if left := w.left(); len(left) > 0 {
				t.Errorf("left by the second: %q", left)
			}
		})
	}
}

// tooSlow reports whether delete has ended a step of its own, to be done in the
// time that containerd leaves it.
func tooSlow(said string) bool {
	return strings.Contains(said, "did not end within") || strings.Contains(said, context.DeadlineExceeded.Error())
}
