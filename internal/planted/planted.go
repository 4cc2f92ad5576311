// Package planted shows that the tests of a package notice its faults.
//
// A table lists faults: small replacements in the package's source, each with
// the test that must fail while the fault is there. [Check] builds the test
// binary once with all faults in it, by go test -overlay, so that the source
// stays as it is. An environment variable, read once by the binary, switches
// one of them on. With none on, all named tests must pass.
package planted

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// variable names the fault that is switched on in the test binary.
const variable = "LARK_PLANTED"

// Fault is a fault to plant, and the test that must fail with it.
type Fault struct {
	// Name is unique in its table.
	Name string
	// File is the source file, relative to the directory of the table's
	// package.
	File string
	// Old is the text to replace. It must occur exactly once in File and must
	// not overlap the Old of another fault: otherwise the table is stale, and
	// Check fails.
	Old string
	// New takes the place of Old. It calls isPlanted("name") itself, as in
	//
	//	if n > limit || isPlanted("no-bound") {
	//
	// or holds the statements that run instead of Old while the fault is
	// switched on; they are put into braces, as are those of Old, which
	// therefore may not declare what later text uses. Empty is a statement
	// left out.
	New string
	// Test is the name of the test that must fail, such as "TestOrder" or
	// "TestOrder/sub".
	Test string
	// Package is where Test is, as go test takes it from the directory of the
	// table's package, such as "../crash". Empty is the table's own package.
	Package string
	// Crashes says that the test binary may also panic or end otherwise than by
	// a failed test.
	Crashes bool
	// Hangs says that the test may also not end. It is given five seconds, and ten
	// times as long as it takes without the fault.
	Hangs bool
	// Alone says that no other test may run at the same time.
	Alone bool
}

// Check plants every fault and fails the test for each that goes unnoticed. It
// must be called by a test of the package whose faults are planted. The
// arguments are for the package's test binary.
//
// The go command must be in PATH. The binary is built without the race
// detector.
func Check(t *testing.T, faults []Fault, args ...string) {
	t.Helper()
	p, err := prepare(t.TempDir(), ".", faults, args)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.sound(t.Context()); err != nil {
		t.Fatal(err)
	}
	var caught atomic.Int32
	t.Run("fault", func(t *testing.T) {
		for _, f := range faults {
			t.Run(f.Name, func(t *testing.T) {
				if !f.Alone {
					t.Parallel()
				}
				if err := p.try(t.Context(), f); err != nil {
					t.Error(err)
					return
				}
				caught.Add(1)
			})
		}
	})
	t.Logf("planted faults: %d of %d caught", caught.Load(), len(faults))
}

// plot is a built table.
type plot struct {
	dir      string // of the table's package
	work     string
	faults   []Fault
	args     []string
	binaries map[string]string        // by the package of the test
	took     map[string]time.Duration // by Fault.key, without a fault

	patience, hangs time.Duration

	runs atomic.Int64
}

// prepare plants the faults in copies of the files and builds the binaries.
func prepare(work, dir string, faults []Fault, args []string) (*plot, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &plot{
		dir: dir, work: work, faults: faults, args: args,
		binaries: map[string]string{}, took: map[string]time.Duration{},
		patience: patience, hangs: hangs,
	}
	if err := p.checkNames(); err != nil {
		return nil, err
	}
	overlay, err := p.overlay()
	if err != nil {
		return nil, err
	}
	return p, p.build(overlay)
}

func (p *plot) checkNames() error {
	seen := map[string]bool{}
	for _, f := range p.faults {
		switch {
		case f.Name == "" || strings.ContainsAny(f.Name, "\"\\ /"):
			return fmt.Errorf("fault %q: not a name", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("fault %s: two have this name", f.Name)
		case f.Old == "" || f.Test == "" || f.File == "":
			return fmt.Errorf("fault %s: File, Old and Test are needed", f.Name)
		case strings.Contains(f.New, "isPlanted(") && !strings.Contains(f.New, fmt.Sprintf("isPlanted(%q)", f.Name)):
			return fmt.Errorf("fault %s: its New asks for another name", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

// text is what takes the place of Old.
func (f Fault) text() string {
	if strings.Contains(f.New, "isPlanted(") {
		return f.New
	}
	return fmt.Sprintf("if isPlanted(%q) {\n%s\n} else {\n%s\n}", f.Name, f.New, f.Old)
}

// overlay writes the changed files, and returns what each replaces.
func (p *plot) overlay() (map[string]string, error) {
	byFile := map[string][]Fault{}
	for _, f := range p.faults {
		byFile[filepath.Join(p.dir, f.File)] = append(byFile[filepath.Join(p.dir, f.File)], f)
	}
	replace := map[string]string{}
	for path, faults := range byFile {
		source, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		changed, err := plant(source, faults)
		if err != nil {
			return nil, err
		}
		if replace[path], err = p.keep(changed); err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.PackageClauseOnly)
		if err != nil {
			return nil, err
		}
		switched := filepath.Join(filepath.Dir(path), "planted_switch.go")
		if replace[switched], err = p.keep(fmt.Appendf(nil, switchFile, file.Name.Name, variable)); err != nil {
			return nil, err
		}
	}
	return replace, nil
}

const switchFile = `package %s

import "os"

var plantedFault = os.Getenv(%q)

func isPlanted(name string) bool { return plantedFault == name }
`

// keep writes a file into the work directory.
func (p *plot) keep(data []byte) (string, error) {
	f, err := os.CreateTemp(p.work, "*.go")
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = f.Write(data)
	return f.Name(), err
}

// plant returns the source of one file with all of its faults in it.
func plant(source []byte, faults []Fault) ([]byte, error) {
	type edit struct {
		at int
		f  Fault
	}
	var edits []edit
	for _, f := range faults {
		if n := bytes.Count(source, []byte(f.Old)); n != 1 {
			return nil, fmt.Errorf("fault %s: stale: its text occurs %d times in %s, want once:\n%s", f.Name, n, f.File, f.Old)
		}
		edits = append(edits, edit{bytes.Index(source, []byte(f.Old)), f})
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.at - b.at })
	var out []byte
	from := 0
	for i, e := range edits {
		if e.at < from {
			return nil, fmt.Errorf("faults %s and %s change the same text of %s", edits[i-1].f.Name, e.f.Name, e.f.File)
		}
		out = append(append(out, source[from:e.at]...), e.f.text()...)
		from = e.at + len(e.f.Old)
	}
	return append(out, source[from:]...), nil
}
