package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// measured is a result as --json writes it, with one figure.
const measured = `{"machine":{"cpu":"a CPU","cpus":2,"arch":"amd64","kernel":"6.1","memory":"1 GiB"},"rounds":5,
"columns":[{"name":"bare runtime"},{"name":"lark-v2"},{"name":"other"}],"figures":[
{"measure":"exec","metric":"cpu","runtime":"stub","param":1,"column":"lark-v2","title":"shim CPU per exec","unit":"ms","better":"lower","samples":[1],"median":1,"ratio":1},
{"measure":"exec","metric":"cpu","runtime":"stub","param":1,"column":"other","title":"shim CPU per exec","unit":"ms","better":"lower","samples":[4],"median":4,"ratio":4}]}`

// larkBench runs `lark bench` with a measured result in a directory of its own.
func larkBench(t *testing.T, args ...string) (dir, out string, err error) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m.json"), []byte(measured), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	var b bytes.Buffer
	cmd := rootCommand()
	cmd.SetOut(&b)
	cmd.SetArgs(append([]string{"bench", "--from", "m.json"}, args...))
	err = cmd.Execute()
	return dir, b.String(), err
}

// TestBenchFrom shows a result again in every form, without measuring; a plot of what was
// not measured is passed over.
func TestBenchFrom(t *testing.T) {
	dir, out, err := larkBench(t, "--targets", "--json", "j", "--html", "h", "--markdown", "m", "--plot", "exec.cpu.stub=s", "--plot", "exec.wall.runc=w")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "shim CPU per exec, 1 in flight, stub") {
		t.Errorf("no target in %s", out)
	}
	for name, want := range map[string]string{
		"j": `"what": "shim CPU per exec, 1 in flight"`, "h": "stub 0.25", "s": "<svg",
		"m": "| shim CPU per exec, 1 in flight | ≤ 0.35 × other | stub 0.25 | met |",
	} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: no %q; %v", name, want, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "w")); err == nil {
		t.Error("what was not measured was drawn")
	}
}

// TestBenchRefuses what it could not do, before it does anything.
func TestBenchRefuses(t *testing.T) {
	for _, args := range []string{"--plot exec.wall.runc", "--plot exec.wall.runc=", "--plot exce.wall.runc=x", "--plot exec=x", "--targets --lark nobody"} {
		if _, _, err := larkBench(t, strings.Fields(args)...); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
}
