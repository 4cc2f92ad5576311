package daemon

// Where the programs are that tests hold against each other. `make` puts them
// there; nothing is fetched or built from here.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The versions that `make test` provides.
const (
	Containerd24 = "2.4.2"
	Containerd17 = "1.7.35"
	Runc15       = "1.5.2"
)

// Cache is the directory outside the checkout where peers are kept.
func Cache() string {
	if dir := os.Getenv("LARK_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = "/root/.cache"
	}
	return filepath.Join(dir, "lark")
}

// Built is the directory with containerd, ctr and containerd-shim-runc-v2 of a
// version built from the module proxy (`build/peers.sh containerd-VERSION`).
func Built(version string) string { return filepath.Join(Cache(), "containerd-"+version) }

// BuiltRunc is a runc built from the module proxy (`build/peers.sh runc-VERSION`).
func BuiltRunc(version string) string { return filepath.Join(Cache(), "runc-"+version, "runc") }

// System is the distribution's containerd: LARK_E2E_CONTAINERD if set, else the
// one in /usr/bin, else in PATH. Debian 12 has 1.6.
func System() string {
	if path := os.Getenv("LARK_E2E_CONTAINERD"); path != "" {
		return path
	}
	if path, err := exec.LookPath("/usr/bin/containerd"); err == nil {
		return path
	}
	path, _ := exec.LookPath("containerd")
	return path
}

// VersionOf asks a containerd for its version, as "1.6.20~ds1"; "" when it
// cannot be run.
func VersionOf(binary string) string {
	out, err := exec.Command(binary, "--version").Output()
	if f := strings.Fields(string(out)); err == nil && len(f) >= 3 {
		return strings.TrimPrefix(f[2], "v")
	}
	return ""
}

// Bin is the directory with lark's own binaries: LARK_BIN if set, else bin/ at
// the root of the checkout, found from the working directory upwards.
func Bin() string {
	if dir := os.Getenv("LARK_BIN"); dir != "" {
		return dir
	}
	wd, err := os.Getwd()
	if err != nil {
		return "bin"
	}
	for dir := wd; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "LICENSE")); err == nil {
			return filepath.Join(dir, "bin")
		}
	}
	return filepath.Join(wd, "bin")
}

// Containerds are the daemons that the tests go through: those named in
// LARK_E2E_CONTAINERDS, separated by commas, else the system's and 2.4.
func Containerds() []string {
	if list := os.Getenv("LARK_E2E_CONTAINERDS"); list != "" {
		return strings.Split(list, ",")
	}
	return []string{System(), filepath.Join(Built(Containerd24), "containerd")}
}

// ShimFor is the shim that is tested under a containerd: LARK_E2E_SHIM, which
// is a path, or "own" for containerd's shim beside the daemon; else lark's.
func ShimFor(containerd string) string {
	switch shim := os.Getenv("LARK_E2E_SHIM"); shim {
	case "":
		return filepath.Join(Bin(), "containerd-shim-lark-v2")
	case "own":
		return OwnShim(containerd)
	default:
		return shim
	}
}

// OwnShim is containerd's shim that came with a daemon.
func OwnShim(containerd string) string {
	return filepath.Join(filepath.Dir(containerd), "containerd-shim-runc-v2")
}

// RuntimeName gives the runtime's name of a shim's path: io.containerd.NAME.VERSION
// for containerd-shim-NAME-VERSION.
func RuntimeName(shim string) (string, error) {
	rest, ok := strings.CutPrefix(filepath.Base(shim), "containerd-shim-")
	i := strings.LastIndex(rest, "-")
	if !ok || i < 0 {
		return "", fmt.Errorf("%s is not named containerd-shim-NAME-VERSION", shim)
	}
	return "io.containerd." + rest[:i] + "." + rest[i+1:], nil
}
