package compat

// COMPATIBILITY.md is held true: every line of its tables names a test, and every test
// that is named exists.

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root     = "../.."
	document = root + "/COMPATIBILITY.md"
	// testsColumn heads the column of a table that the names of tests are in.
	testsColumn = "tests"
	// scenarioMark is what stands before the name of a scenario there.
	scenarioMark = "same: "
	// leastLines: fewer, and the page was not read as it is meant.
	leastLines = 50
)

var declaration = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(t \*testing\.T\)`)

// declared are the tests of both modules: the directories in which each name stands.
func declared(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, m := range declaration.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = append(found[m[1]], dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// named are the lines of the page's tables: a feature and its tests.
func named(page string) map[string][]string {
	lines := map[string][]string{}
	inTable := false
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		last := cells[len(cells)-1]
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case last == testsColumn:
			inTable = true
		case inTable && !strings.HasPrefix(cells[0], "---"):
			lines[cells[0]] = strings.Split(last, ", ")
		}
	}
	return lines
}

func TestDocumentIsTrue(t *testing.T) {
	page, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	tests, lines := declared(t), named(string(page))
	if len(lines) < leastLines {
		t.Fatalf("only %d lines were found", len(lines))
	}
	for feature, names := range lines {
		for _, name := range names {
			if wanted, ok := strings.CutPrefix(name, scenarioMark); ok {
				if !slices.ContainsFunc(allScenarios(), func(s scenario) bool { return s.name == wanted }) {
					t.Errorf("%s: there is no scenario %q", feature, wanted)
				}
				continue
			}
			dir, test := "", name
			if i := strings.LastIndexByte(name, '.'); i >= 0 {
				dir, test = name[:i], name[i+1:]
			}
			if dirs := tests[test]; len(dirs) == 0 || dir != "" && !slices.Contains(dirs, dir) {
				t.Errorf("%s: there is no test %q", feature, name)
			}
		}
	}
	// The other way round for what is in the text alone.
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(page), -1) {
		if tests[m[1]] == nil {
			t.Errorf("there is no test %s", m[1])
		}
	}
}

func TestNamed(t *testing.T) {
	got := named("| feature | tests |\n|---|---|\n| one | TestA, same: b c |\n\n| other | table |\n|---|---|\n| two | TestB |\n")
	if len(got) != 1 || !slices.Equal(got["one"], []string{"TestA", "same: b c"}) {
		t.Errorf("%v", got)
	}
}
