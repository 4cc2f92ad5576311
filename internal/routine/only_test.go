package routine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/larkshim/lark/"

// starters may start goroutines: this package, and the file of package children
// that does the same for it, which imports nothing of lark's.
var starters = map[string]bool{
	"internal/routine/routine.go": true,
	"children/routine.go":         true,
}

// TestF13OnlyHereGoroutinesStart finds every other way in which the shim's code
// starts a goroutine, where a panic would end the pod.
func TestF13OnlyHereGoroutinesStart(t *testing.T) {
	seen := map[string]bool{}
	todo := []string{"cmd/containerd-shim-lark-v2"}
	for len(todo) > 0 {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[dir] {
			continue
		}
		seen[dir] = true
		for name, f := range parseDir(t, dir) {
			for _, i := range f.Imports {
				path, err := strconv.Unquote(i.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if rest, ok := strings.CutPrefix(path, module); ok {
					todo = append(todo, rest)
				}
			}
			if !starters[name] {
				for _, found := range goroutines(f) {
					t.Errorf("%s starts a goroutine with %s", name, found)
				}
			}
		}
	}
	if !seen["internal/task"] || !seen["children"] {
		t.Errorf("these are not the packages of the shim: %v", seen)
	}
}

// parseDir parses the package in a directory of the module, without its tests.
func parseDir(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	paths, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no package in %s: %v", dir, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[dir+"/"+filepath.Base(path)] = f
	}
	return files
}

// goroutines lists what starts a goroutine in a file: a go statement, the
// functions of time and context that call one on a goroutine of their own, and
// the methods of that name of wait groups.
func goroutines(f *ast.File) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "a go statement")
		case *ast.SelectorExpr:
			x, _ := n.X.(*ast.Ident)
			switch {
			case x != nil && x.Name == "routine":
			case n.Sel.Name == "AfterFunc", n.Sel.Name == "Go":
				found = append(found, n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// TestF13FindsGoroutines: the test above sees each of these.
func TestF13FindsGoroutines(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x
		func f() { go g(); time.AfterFunc(1, g); context.AfterFunc(ctx, g); s.wg.Go(g); routine.Go(log, "", g); var wg sync.WaitGroup; wg.Go(g) }`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := goroutines(f); len(got) != 5 {
		t.Errorf("found %v", got)
	}
}
