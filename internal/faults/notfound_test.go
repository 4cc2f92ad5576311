package faults

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sayNotFound are the functions that may say NotFound of a task, container or
// exec, as package and function: of an id that the shim does not have, and for
// a runtime that ran and refused and whose state was looked for.
var sayNotFound = []string{
	"github.com/larkshim/lark/internal/task.notFound",
	"github.com/larkshim/lark/internal/oci.absent",
}

// mayBeTold lists what only compares with NotFound, or is the class itself.
var mayBeTold = []string{
	// A constant that errors.Is and errdefs.Resolve compare with.
	"github.com/larkshim/lark/internal/errno.Classed",
	"github.com/larkshim/lark/internal/errno.isClass",
	// The class that a status code of the wire stands for, and the code of a class.
	"github.com/larkshim/lark/internal/ttrpc.class",
}

// notOurs are packages of others that name the class: they define it, turn it
// into a status code and back, and make none for an error that has none.
var notOurs = []string{"github.com/containerd/errdefs", "google.golang.org/grpc/", "google.golang.org/genproto/", "github.com/containerd/ttrpc"}

// TestF01OnlyTwoSayNotFound parses every package that the shim links, but for
// Go's own, and finds each place that could make an error of the class
// NotFound: the class itself, the status code, and methods by which errdefs
// recognises the class.
func TestF01OnlyTwoSayNotFound(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{.Dir}} {{.GoFiles}}{{end}}",
		"github.com/larkshim/lark/cmd/containerd-shim-lark-v2")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages, met := 0, map[string]bool{}
	for line := range strings.Lines(string(out)) {
		path, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		dir, files, ok := strings.Cut(rest, " [")
		if !ok || slices.ContainsFunc(notOurs, func(p string) bool { return strings.HasPrefix(path, p) }) {
			continue
		}
		packages++
		for _, name := range strings.Fields(strings.TrimSuffix(files, "]")) {
			for _, at := range namesNotFound(t, filepath.Join(dir, name)) {
				where := path + "." + at.function
				met[where] = true
				if !slices.Contains(sayNotFound, where) && !slices.Contains(mayBeTold, where) {
					t.Errorf("%s: %s names NotFound", at.position, where)
				}
			}
		}
	}
	for _, where := range slices.Concat(sayNotFound, mayBeTold) {
		if !met[where] {
			t.Errorf("%s does not name NotFound any more, or was not looked at", where)
		}
	}
	if packages < 20 {
		t.Errorf("only %d packages were looked at", packages)
	}
}

// naming is a place that names NotFound.
type naming struct{ function, position string }

// namesNotFound finds such places in one file.
func namesNotFound(t *testing.T, path string) (found []naming) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		function := "(no function)"
		if f, ok := d.(*ast.FuncDecl); ok {
			function = f.Name.Name
			if f.Recv != nil && function == "NotFound" { // as errdefs recognises it
				found = append(found, naming{function, set.Position(f.Pos()).String()})
			}
		}
		ast.Inspect(d, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from, _ := s.X.(*ast.Ident)
			if from == nil {
				return true
			}
			class := from.Name == "errdefs" && s.Sel.Name == "ErrNotFound"
			code := from.Name == "codes" && s.Sel.Name == "NotFound"
			if class || code {
				found = append(found, naming{function, set.Position(s.Pos()).String()})
			}
			return true
		})
	}
	return found
}

// The test finds what it looks for: in a test of another package, say.
func TestF01NotFoundIsFound(t *testing.T) {
	found := namesNotFound(t, filepath.Join("testdata", "notfound.go.txt"))
	want := []string{"class", "code", "NotFound", "(no function)"}
	var got []string
	for _, at := range found {
		got = append(got, at.function)
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
