package daemon

// The daemon's configuration file, and the mounts that it may be started
// without.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// prepare makes the daemon's directories and its configuration.
func (d *Daemon) prepare() error {
	for _, dir := range []string{"root", "state", "opt", "runc"} {
		if err := os.Mkdir(filepath.Join(d.dir, dir), 0o700); err != nil {
			return err
		}
	}
	out, err := exec.Command(d.cfg.Binary, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", d.cfg.Binary, err)
	}
	return os.WriteFile(d.dir+"/config.toml", []byte(d.toml(string(out))), 0o600)
}

// toml is the configuration for the daemon that printed version. 1.x reads
// version 2 of the file, and calls the CRI plugin by another name than 2.x.
func (d *Daemon) toml(version string) string {
	format, cri := 3, []string{"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.podsandbox.controller.v1.podsandbox"}
	if f := strings.Fields(version); len(f) >= 3 && strings.HasPrefix(strings.TrimPrefix(f[2], "v"), "1.") {
		format, cri = 2, cri[:1]
	}
	// NRI and tracing open things outside of the daemon's directories.
	disabled := []string{"io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"}
	if !d.cfg.CRI {
		disabled = append(disabled, cri...)
	}
	level := "info"
	if d.cfg.Debug {
		level = "debug"
	}
	return fmt.Sprintf(`version = %d
root = %q
state = %q
disabled_plugins = ["%s"]
[grpc]
  address = %q
[debug]
  level = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
%s
`, format, d.dir+"/root", d.dir+"/state", strings.Join(disabled, `", "`), d.Address(), level, d.dir+"/opt", d.cfg.Extra)
}

// hybridCgroup2 lists the cgroup2 mounts of a machine that has v1 controllers
// mounted beside them.
func hybridCgroup2() []string {
	var v1 bool
	var v2 []string
	for _, m := range mounts() {
		switch m.fstype {
		case "cgroup":
			v1 = true
		case "cgroup2":
			v2 = append(v2, m.target)
		}
	}
	if !v1 {
		return nil
	}
	return v2
}

type mount struct{ target, fstype string }

// mounts reads this process's mount table (proc(5), mountinfo), oldest first.
func mounts() []mount {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var ms []mount
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 1 {
			continue
		}
		ms = append(ms, mount{target: unescape.Replace(f[4]), fstype: g[0]})
	}
	return ms
}

// unescape undoes mountinfo's octal escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
