package faults

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root = "../.."
	page = root + "/FAULTS.md"
	// rows is how many the catalogue has, found how many faults the field has found.
	rows  = 65
	found = 30
)

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	named    = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Za-z0-9_]+\b`)
	carried  = regexp.MustCompile(`(?:Row|And)(\d\d)(?:to(\d\d))?`)
)

// tests are the names of all test functions of both modules.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && path != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "bin" || e.Name() == "rootfs" && filepath.Dir(path) == root) {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 300 {
		t.Fatalf("only %d tests were found: the tree is not what it should be", len(found))
	}
	return found
}

// table returns the cells of every line of the table below a heading.
func table(t *testing.T, heading string) (lines [][]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no part %q", page, heading)
	}
	part, _, _ := strings.Cut(after, "\n## ")
	for line := range strings.Lines(part) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		lines = append(lines, cells)
	}
	if len(lines) < 3 {
		t.Fatalf("the table of %q is empty", heading)
	}
	return lines[2:] // without its head and the line below that
}

// carries reports whether a test's name has the row's number in it.
func carries(test string, row int) bool {
	for _, m := range carried.FindAllStringSubmatch(test, -1) {
		from, _ := strconv.Atoi(m[1])
		to, err := strconv.Atoi(m[2])
		if err != nil {
			to = from
		}
		if from <= row && row <= to {
			return true
		}
	}
	return false
}

// Every row of the catalogue is there once, in order, and is tried by tests that exist,
// of which one at least has the row's number in its name.
func TestEveryRow(t *testing.T) {
	exist := tests(t)
	lines := table(t, "The rows")
	if len(lines) != rows {
		t.Errorf("%d rows, want %d", len(lines), rows)
	}
	listed := map[string]bool{}
	for i, cells := range lines {
		if len(cells) != 4 || cells[0] != fmt.Sprint(i+1) || cells[1] == "" || cells[2] == "" {
			t.Fatalf("row %d reads %q", i+1, cells)
		}
		names := named.FindAllString(cells[3], -1)
		its := strings.HasPrefix(cells[2], "not lark's:")
		for _, name := range names {
			listed[name] = true
			its = its || carries(name, i+1)
			if !exist[name] {
				t.Errorf("row %d: there is no test %s", i+1, name)
			}
		}
		if !its {
			t.Errorf("row %d: no test of its own, and no reason: %s", i+1, cells[3])
		}
	}
	for name := range exist {
		if carried.MatchString(name) && strings.Contains(name, "Row") && !listed[name] {
			t.Logf("%s is not in the table", name)
		}
	}
}

// Every fault that the field has found is there once, in order, with tests that
// exist, and every test that has its number in its name is one of them.
func TestEveryFieldFault(t *testing.T) {
	exist := tests(t)
	lines := table(t, "What the field found")
	if len(lines) != found {
		t.Errorf("%d faults, want %d", len(lines), found)
	}
	for i, cells := range lines {
		number := fmt.Sprintf("F%02d", i+1)
		if len(cells) != 5 || cells[0] != number || slices.Contains(cells, "") {
			t.Fatalf("fault %s reads %q", number, cells)
		}
		listed := named.FindAllString(cells[3], -1)
		for _, name := range listed {
			if !exist[name] {
				t.Errorf("fault %s: there is no test %s", number, name)
			}
		}
		its := regexp.MustCompile(`^Test` + number + `(?:\D|$)`)
		if !slices.ContainsFunc(listed, its.MatchString) {
			t.Errorf("fault %s: no test of its own: %s", number, cells[3])
		}
		for name := range exist {
			if its.MatchString(name) && !slices.Contains(listed, name) {
				t.Errorf("fault %s: %s is not in the table", number, name)
			}
		}
	}
}

// Every variable that the shim reads is in docs/environment.md, and every one that
// is there is read.
func TestEveryVariable(t *testing.T) {
	variable := regexp.MustCompile(`LARK_[A-Z_]+`)
	text, err := os.ReadFile(root + "/docs/environment.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, name := range variable.FindAllString(string(text), -1) {
		documented[name] = true
	}
	read := map[string]bool{}
	for _, dir := range []string{"internal/oci", "internal/admission", "internal/bootstrap", "internal/task", "internal/stdio"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`"(LARK_[A-Z_]+)"`).FindAllStringSubmatch(string(source), -1) {
				read[m[1]] = true
				if !documented[m[1]] {
					t.Errorf("%s reads %s, which is not documented", file, m[1])
				}
			}
		}
	}
	for name := range documented {
		if !read[name] {
			t.Errorf("%s is documented and not read", name)
		}
	}
	if len(read) < 10 {
		t.Errorf("only %d variables were found", len(read))
	}
}

// Every bound is a constant of its package's table and has a test.
func TestEveryBound(t *testing.T) {
	exist := tests(t)
	for _, cells := range table(t, "The bounds") {
		if len(cells) != 4 {
			t.Fatalf("a bound reads %q", cells)
		}
		limits, err := os.ReadFile(filepath.Join(root, cells[0], "limits.go"))
		if err != nil {
			t.Error(err)
			continue
		}
		if !regexp.MustCompile(`(?m)^\t` + regexp.QuoteMeta(cells[1]) + `\s+=`).Match(limits) {
			t.Errorf("%s has no bound %s", cells[0], cells[1])
		}
		names := named.FindAllString(cells[3], -1)
		if len(names) == 0 {
			t.Errorf("%s.%s has no test", cells[0], cells[1])
		}
		for _, name := range names {
			if !exist[name] {
				t.Errorf("%s.%s: there is no test %s", cells[0], cells[1], name)
			}
		}
	}
}

// The reading of a test's name.
func TestCarries(t *testing.T) {
	for _, c := range []struct {
		name string
		row  int
		want bool
	}{
		{"TestRow07Options", 7, true}, {"TestRow07Options", 70, false}, {"TestRow30And34Output", 34, true},
		{"TestW17Row53ClientGoesAway", 53, true}, {"TestRow13to16OutOfTurn", 14, true}, {"TestRow13to16OutOfTurn", 17, false},
		{"TestRow01to09Refusals", 9, true}, {"FuzzIDs", 1, false},
	} {
		if got := carries(c.name, c.row); got != c.want {
			t.Errorf("%s carries %d: %v", c.name, c.row, got)
		}
	}
}

// What SECURITY.md promises is tried by tests that exist.
func TestEveryPromise(t *testing.T) {
	exist := tests(t)
	text, err := os.ReadFile(root + "/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	promises := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| promise ") {
			continue
		}
		promises++
		names := named.FindAllString(line, -1)
		if len(names) == 0 {
			t.Errorf("no test: %.60s", line)
		}
		for _, name := range names {
			if !exist[name] {
				t.Errorf("there is no test %s", name)
			}
		}
	}
	if promises < 10 {
		t.Errorf("only %d promises were found", promises)
	}
}
