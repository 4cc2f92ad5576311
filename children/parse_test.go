package children

import (
	"os"
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	const tail = " S 42 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10 11\n"
	for _, comm := range []string{"sleep", "", "a b", ") Z 1", "(", "x) (y", "\n"} {
		st, err := parseStat([]byte("1 (" + comm + ")" + tail))
		if err != nil || st != (stat{state: 'S', parent: 42, start: 4711}) {
			t.Errorf("%q: %+v, %v", comm, st, err)
		}
	}
	for _, text := range []string{"", "1 (sleep", "1 (sleep)", "1 (sleep) S", "1 (sleep) S x 1", "1 (s) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -5"} {
		if st, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, st)
		}
	}
	st, err := statOf(kernel{}, os.Getpid())
	if err != nil || st.parent != os.Getppid() || st.dead() || st.start > (kernel{}).bootTicks() {
		t.Errorf("our own: %+v, %v", st, err)
	}
}

func FuzzParseStat(f *testing.F) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("1 ()) R 1"))
	f.Add([]byte(")\x00 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0")) // a state that is none
	f.Fuzz(func(t *testing.T, text []byte) {
		if st, err := parseStat(text); err == nil && st.state == 0 {
			t.Errorf("%q: %+v", text, st)
		}
	})
}

func FuzzParsePIDNamespace(f *testing.F) {
	f.Add("pid:[4026531836]")
	f.Add("pid:[0]")
	f.Add("mnt:[4026531836]")
	f.Add("pid:[-1]")
	f.Fuzz(func(t *testing.T, link string) {
		ino, err := parsePIDNamespace(link)
		if err == nil && (ino == 0 || !strings.HasPrefix(link, "pid:[")) {
			t.Errorf("%q: %d", link, ino)
		}
	})
}

func FuzzParsePids(f *testing.F) {
	f.Add([]byte("1 2 3 "))
	f.Add([]byte("1\n2\n"))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		pids, err := parsePids(text, nil)
		if err == nil && len(pids) != len(strings.Fields(string(text))) && len(text) < 128 {
			t.Errorf("%q: %v", text, pids)
		}
	})
}

func FuzzParseDirents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04self\x00"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for _, name := range parseDirents(buf, nil) {
			if name == "." || name == ".." {
				t.Errorf("%q: %q", buf, name)
			}
		}
	})
}

func FuzzParseCgroupMounts(f *testing.F) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), "/sys/fs/cgroup/pids/x")
	f.Fuzz(func(t *testing.T, text, dir string) {
		mounts := parseCgroupMounts(text)
		if path, ok := freezerOf(dir, mounts); ok && path == "" {
			t.Errorf("%q, %q", text, dir)
		}
	})
}
