package planted

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a module with a function and its tests.
func write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module subject\n\ngo 1.26\n",
		"subject.go": `package subject

func Double(n int) int {
	n += n
	return n
}

func Half(n int) int { return n / 2 }

func Same(x int) int {
	if x != 0 {
		return x
	}
	return 0
}

func Wait() {
	closed := make(chan struct{})
	close(closed)
	<-closed
}
`,
		"subject_test.go": `package subject

import "testing"

func TestDouble(t *testing.T) {
	t.Run("two", func(t *testing.T) {
		if Double(2) != 4 {
			t.Error("two")
		}
	})
}

func TestLazy(t *testing.T) { Half(2) }

func TestSame(t *testing.T) { Same(1) }

func TestWait(t *testing.T) { Wait() }

func TestRed(t *testing.T) { t.Error("red") }
`,
		"other/other_test.go": `package other

import (
	"subject"
	"testing"
)

func TestHalf(t *testing.T) {
	if subject.Half(4) != 2 {
		t.Error("four")
	}
}
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVerdicts(t *testing.T) {
	const half = "n / 2"
	cases := []struct {
		fault Fault
		want  string // of the error; empty if the fault is noticed
	}{
		{Fault{Name: "statement", Old: "n += n", New: "n += 1", Test: "TestDouble"}, ""},
		{Fault{Name: "subtest", Old: "return n\n", New: "if isPlanted(\"subtest\") {\nreturn 0\n}\nreturn n\n", Test: "TestDouble/two"}, ""},
		{Fault{Name: "elsewhere", Old: half, New: `n / map[bool]int{false: 2, true: 3}[isPlanted("elsewhere")]`, Test: "TestHalf", Package: "./other"}, ""},
		{Fault{Name: "crash", Old: "return x", New: "panic(x)", Test: "TestSame", Crashes: true}, ""},
		{Fault{Name: "hang", Old: "close(closed)", Test: "TestWait", Hangs: true}, ""},
	}
	dir := write(t)
	var faults []Fault
	for i := range cases {
		cases[i].fault.File = "subject.go"
		faults = append(faults, cases[i].fault)
	}
	p, err := prepare(t.TempDir(), dir, faults, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.sound(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.hangs = 100 * time.Millisecond
	// The same faults, judged as others would declare them.
	other := func(i int, change func(*Fault), want string) {
		f := faults[i]
		change(&f)
		p.took[f.key()] = 0
		cases = append(cases, struct {
			fault Fault
			want  string
		}{f, want})
	}
	other(0, func(f *Fault) { f.Test = "TestLazy" }, "not noticed")
	other(3, func(f *Fault) { f.Crashes = false }, "does not fail")
	for _, c := range cases {
		err := p.try(t.Context(), c.fault)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.fault, err, c.want)
		}
	}
	p.patience = p.hangs
	hang := faults[4]
	hang.Hangs = false
	if err := p.try(t.Context(), hang); err == nil || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("a hang that was not declared: %v", err)
	}
	for _, test := range []string{"TestRed", "TestAbsent"} {
		p.faults = []Fault{{Name: "x", File: "subject.go", Test: test}}
		if err := p.sound(t.Context()); err == nil || !strings.Contains(err.Error(), "without") {
			t.Errorf("%s: %v", test, err)
		}
	}
}

func TestStaleTables(t *testing.T) {
	dir := write(t)
	fault := func(name, old, text string) Fault {
		return Fault{Name: name, File: "subject.go", Old: old, New: text, Test: "TestDouble"}
	}
	for want, faults := range map[string][]Fault{
		"occurs 0 times":  {fault("gone", "n *= 2", "")},
		"occurs 2 times":  {fault("twice", "n int) int", "")},
		"have this name":  {fault("a", "n += n", ""), fault("a", "return n\n", "")},
		"change the same": {fault("a", "n += n", ""), fault("b", "n += n\n\treturn", "")},
		"another name":    {fault("a", "n += n", `isPlanted("b")`)},
		"not a name":      {fault("", "n += n", "")},
		"are needed":      {fault("a", "", "")},
		"do not build":    {fault("a", "n += n", "no Go")},
		"no such file":    {{Name: "a", File: "absent.go", Old: "x", Test: "TestDouble"}},
	} {
		if _, err := prepare(t.TempDir(), dir, faults, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
