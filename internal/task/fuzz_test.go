package task

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// A process spec that Exec takes is JSON with arguments, without a NUL, and with the
// terminal that the request asks for; another is refused with a class (row 25).
func FuzzExecSpec(f *testing.F) {
	for _, s := range []string{
		"", "null", "{", "[]", `{"args":["true"],"cwd":"/"}`, `{"args":["true"],"terminal":true,"user":{"uid":7}}`, `{"args":[]}`,
		`{"args":["a\u0000"]}`, `{"args":["a"],"env":["\u0000"]}`, `{"args":["a"],"args":["b"]}`, `{"ARGS":["a"],"Terminal":true}`, "{\"args\":[\"\xff\"]}",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, terminal bool) {
		out, err := execSpec(&anypb.Any{Value: data}, terminal)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("an untyped error: %v", err)
			}
			return
		}
		var p specs.Process
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		if len(p.Args) == 0 || p.Terminal != terminal || strings.Contains(strings.Join(append(p.Args, p.Env...), ""), "\x00") {
			t.Errorf("%q became %+v", data, p)
		}
	})
}
