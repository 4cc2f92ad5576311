package daemon

import (
	"path/filepath"
	"testing"
)

func TestRuntimeNames(t *testing.T) {
	for shim, want := range map[string]string{
		"/a/containerd-shim-lark-v2":     "io.containerd.lark.v2",
		"containerd-shim-runc-v2":        "io.containerd.runc.v2",
		"/x/containerd-shim-a-b-v1":      "io.containerd.a-b.v1",
		"/x/shim":                        "",
		"containerd-shim-lark":           "",
		"/containerd-shim-lark-v2/other": "",
	} {
		got, err := RuntimeName(shim)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", shim, got, err, want)
		}
	}
}

func TestEnvironmentChooses(t *testing.T) {
	t.Setenv("LARK_E2E_CONTAINERDS", "/a/containerd,/b/containerd")
	t.Setenv("LARK_BIN", "/lark")
	if got := Containerds(); len(got) != 2 || got[1] != "/b/containerd" {
		t.Errorf("containerds: %q", got)
	}
	for env, want := range map[string]string{"": "/lark/containerd-shim-lark-v2", "own": "/a/containerd-shim-runc-v2", "/x/y": "/x/y"} {
		t.Setenv("LARK_E2E_SHIM", env)
		if got := ShimFor("/a/containerd"); got != want {
			t.Errorf("LARK_E2E_SHIM=%q: %s, want %s", env, got, want)
		}
	}
	t.Setenv("LARK_BIN", "")
	if got := Bin(); filepath.Base(got) != "bin" || filepath.Base(filepath.Dir(got)) == "daemon" {
		t.Errorf("bin/ at the root of the checkout, found %s", got)
	}
	t.Setenv("LARK_CACHE", "/c")
	if got := Built("2.4.2"); got != "/c/containerd-2.4.2" {
		t.Errorf("built: %s", got)
	}
	if VersionOf("/no/such") != "" || VersionOf(System()) == "" {
		t.Error("the version of what cannot be run is empty, of the system's containerd it is not")
	}
}
