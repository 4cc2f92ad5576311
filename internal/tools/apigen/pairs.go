package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// pairs returns the table of each generated message and the official one, for the
// tests of internal/api.
func pairs() []byte {
	paths := map[string]string{ // by import path: the name
		"github.com/larkshim/lark/internal/api":         "api",
		"github.com/larkshim/lark/internal/api/cgroup1": "cgroup1",
		"github.com/larkshim/lark/internal/api/cgroup2": "cgroup2",
		"google.golang.org/protobuf/proto":              "proto",
	}
	var table strings.Builder
	add := func(pkg string, m proto.Message) {
		t := reflect.TypeOf(m).Elem()
		if paths[t.PkgPath()] == "" {
			paths[t.PkgPath()] = fmt.Sprintf("official%d", len(paths)-3)
		}
		fmt.Fprintf(&table, "{new(%s.%s), new(%s.%s)},\n", pkg, goName(m), paths[t.PkgPath()], t.Name())
	}
	for _, o := range outputs {
		for _, m := range o.messages {
			add(o.pkg, m)
		}
	}
	for _, m := range twins {
		add("api", m)
	}
	imports := make([]string, 0, len(paths))
	for path, name := range paths {
		imports = append(imports, fmt.Sprintf("%s %q\n", name, path))
	}
	slices.SortFunc(imports, func(a, b string) int {
		return strings.Compare(a[strings.IndexByte(a, '"'):], b[strings.IndexByte(b, '"'):])
	})
	return []byte(header + "package api_test\n\nimport (\n" + strings.Join(imports, "") + ")\n\n" +
		"var pairs = []struct {\nours api.Message\nofficial proto.Message\n}{\n" + table.String() + "}\n")
}
