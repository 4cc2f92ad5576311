package bootstrap

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

// The level of BootstrapParams is that of the serving process; -debug makes it debug
// unless it is lower already.
func TestLogLevel(t *testing.T) {
	for _, x := range []struct {
		level bootapi.LogLevel
		debug bool
		want  []string
	}{
		{bootapi.LogLevel_LOG_LEVEL_INFO, false, nil},
		{bootapi.LogLevel_LOG_LEVEL_DEBUG, false, []string{"-debug"}},
		{bootapi.LogLevel_LOG_LEVEL_TRACE, false, []string{"-debug"}},
		{bootapi.LogLevel_LOG_LEVEL_WARN, false, []string{"-log-level", "4"}},
		{bootapi.LogLevel_LOG_LEVEL_ERROR, false, []string{"-log-level", "8"}},
		{bootapi.LogLevel_LOG_LEVEL_WARN, true, []string{"-debug"}},
	} {
		d := newDaemon(t)
		c := d.container("c1")
		var p bootapi.BootstrapParams
		if err := proto.Unmarshal(c.params(), &p); err != nil {
			t.Fatal(err)
		}
		p.LogLevel = x.level
		in, err := proto.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"start"}
		if x.debug {
			args = []string{"-debug", "start"}
		}
		out, err := c.run(in, args...)
		if err != nil {
			t.Fatalf("%v: %v: %s", x, err, out)
		}
		shim := connect(t, strings.TrimPrefix(parse(t, out).Address, "unix://"))
		cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(shim.pid) + "/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		at := slices.Index(got, "-address")
		if at < 0 || !slices.Equal(got[at+2:], x.want) {
			t.Errorf("level %v, debug %v: %q", x.level, x.debug, got)
		}
		shim.shutdown()
	}
}
