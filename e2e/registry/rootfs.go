// Package registry makes the images that the tests of lark run, on the spot and from one static busybox, and serves them
// under the names by which containerd's tests know them, on the loopback device: nothing is downloaded.
//
// rootfs.go makes the files of an image, images.go the images, server.go serves them.
package registry

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"
)

// BusyboxPath is where Debian's and Ubuntu's package busybox-static puts its one file.
const BusyboxPath = "/bin/busybox"

// users are the accounts of Debian's base-passwd that containerd's tests ask for by name (www-data) or by number (3 and
// 34); the numbers are Debian's own.
const users = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
backup:x:34:34:backup:/var/backups:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const groups = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
mail:x:8:
www-data:x:33:
operator:x:37:
backup:x:34:
users:x:100:
nogroup:x:65534:
`

// netcat stands in for `nc`. It is pid 1 of its container in TestBindLowPortNonOpt, which ends it with SIGTERM and wants
// status 143; the kernel gives pid 1 no signal it has no handler for, the busybox behind the published image has one and
// Debian's has none.
const netcat = `#!/bin/sh
trap 'exit 143' TERM
busybox nc "$@" &
wait $!
`

// modified is the time of every file, so that equal inputs make equal digests.
var modified = time.Unix(1_700_000_000, 0)

// Busybox is a static busybox and the applets it has.
type Busybox struct {
	binary  []byte
	applets []string
}

// OpenBusybox reads the busybox at file, which must be static (it will run in an empty root) and must run on this machine.
func OpenBusybox(file string) (*Busybox, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("busybox (package busybox-static): %w", err)
	}
	parsed, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("busybox %s: %w", file, err)
	}
	for _, program := range parsed.Progs {
		if program.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("busybox %s is linked dynamically: install busybox-static", file)
		}
	}
	listed, err := exec.Command(file, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("applets of %s: %w", file, err)
	}
	applets := strings.Fields(string(listed))
	for _, needed := range []string{"sh", "sleep", "cat", "true", "nc", "stty", "top"} {
		if !slices.Contains(applets, needed) {
			return nil, fmt.Errorf("busybox %s has no %s", file, needed)
		}
	}
	return &Busybox{binary: binary, applets: applets}, nil
}

// RootFS is a tar of a root file system around the busybox: every applet as a link in /bin, a bash that is sh, users, and
// the usual empty directories. The label goes into a file, so that images with other labels have no layer in common.
func (b *Busybox) RootFS(label string) ([]byte, error) {
	t := &tree{}
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/www"} {
		t.dir(dir, 0o755, 0, 0)
	}
	t.dir("tmp", 0o1777, 0, 0)
	t.file("bin/busybox", b.binary, 0o755)
	t.file("bin/nc", []byte(netcat), 0o755)
	for _, applet := range b.applets {
		if applet != "busybox" && applet != "nc" {
			t.link("bin/"+applet, "busybox")
		}
	}
	// A script: busybox goes by the name it is called by, and knows no bash.
	t.file("bin/bash", []byte("#!/bin/sh\nexec sh \"$@\"\n"), 0o755)
	t.file("etc/passwd", []byte(users), 0o644)
	t.file("etc/group", []byte(groups), 0o644)
	t.file("etc/image", []byte(label+"\n"), 0o644)
	return t.bytes()
}

// tree collects the entries of a tar.
type tree struct {
	entries []entry
}

type entry struct {
	header tar.Header
	data   []byte
}

func (t *tree) dir(name string, mode int64, uid, gid int) {
	t.entries = append(t.entries, entry{header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: gid}})
}

func (t *tree) file(name string, data []byte, mode int64) {
	t.entries = append(t.entries, entry{header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}, data: data})
}

func (t *tree) link(name, target string) {
	t.entries = append(t.entries, entry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}})
}

func (t *tree) bytes() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := range t.entries {
		h := &t.entries[i].header
		if path.IsAbs(h.Name) {
			return nil, errors.New("absolute name in an image: " + h.Name)
		}
		h.ModTime = modified
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(t.entries[i].data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
