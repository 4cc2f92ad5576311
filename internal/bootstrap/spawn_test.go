package bootstrap

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// F26: what serves is the program that was started, although its name is another's by
// now, and ps shows that name.
func TestF26ServerIsTheProgramThatStarted(t *testing.T) {
	d := newDaemon(t)
	c := d.container("c1")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(d.dir, "containerd-shim-x-v2")
	if err := os.WriteFile(program, self, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := c.command("start")
	cmd.Path, cmd.Args[0] = program, program
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil { // which returns when the program was executed
		t.Fatal(err)
	}
	// As an installation does it.
	if err := os.WriteFile(program+".new", []byte("#!/bin/false\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(c.params()); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("start: %v: %s", err, &out)
	}
	shim := connect(t, strings.TrimPrefix(parse(t, out.String()).Address, "unix://"))
	if comm := procField(t, shim.pid, "comm", ""); comm != "containerd-shim" { // 15 bytes
		t.Errorf("comm is %q", comm)
	}
	if args := procField(t, shim.pid, "cmdline", ""); !strings.HasPrefix(args, program+"\x00-namespace\x00") {
		t.Errorf("arguments %q", args)
	}
	shim.shutdown()
}
