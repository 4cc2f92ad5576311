// Command apigen writes the messages of internal/api and of the packages below it
// from the descriptors that containerd's own Go packages carry. It is run by `go
// generate ./internal/api`, in internal/api.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

// write writes the files below the directory of internal/api.
func write(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
