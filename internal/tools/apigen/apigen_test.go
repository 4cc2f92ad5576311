package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files of internal/api are what `go generate ./internal/api` writes, all of
// them, and the same each time.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	const api = "../../api"
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	again, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if !bytes.Equal(text, again[name]) {
			t.Errorf("%s is another the second time", name)
		}
		there, err := os.ReadFile(filepath.Join(api, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(there, text) {
			t.Errorf("%s is out of date: run go generate ./internal/api", name)
		}
	}
	err = filepath.WalkDir(api, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".gen.go") {
			return err
		}
		name, err := filepath.Rel(api, path)
		if files[name] == nil {
			t.Errorf("%s is no longer generated", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
