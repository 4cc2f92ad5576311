package lifecycle

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/containerd/errdefs"
)

// fuzzLen bounds a fuzzed sequence: every state is reached in far fewer steps, and
// the fuzzer likes to make things long.
const fuzzLen = 128

// fuzzEvent makes an event of three bytes. Nothing is left out, so that kinds that
// do not exist and events that break the contract come too.
func fuzzEvent(b []byte) Event {
	procs := []Proc{Init, "a", "b", "c"}
	return Event{
		Kind:     Kind(b[0] % (byte(numKinds) + 1)),
		Proc:     procs[b[1]%4],
		Pid:      initPid + int(b[1]%4),
		Exit:     Exit{Status: uint32(b[2])},
		Shared:   b[2]&1 != 0,
		Deferred: b[2]&2 != 0,
		OOM:      b[2]&4 != 0,
	}
}

// FuzzEvents feeds a machine whatever comes, in contract or not. It never panics,
// what it announces keeps the order, and what it refuses changes nothing.
func FuzzEvents(f *testing.F) {
	plain := []Kind{CreateAsked, Created, StartAsked, Started}
	var seed []byte
	for _, k := range plain {
		seed = append(seed, byte(k), 0, 1)
	}
	f.Add(seed)
	for _, k := range []Kind{ExecAsked, StartAsked, Started} {
		seed = append(seed, byte(k), 1, 0)
	}
	f.Add(append(seed, byte(Exited), 0, 9, byte(Exited), 1, 9, byte(KillAllDone), 0, 0, byte(Looked), 0, 4, byte(DeleteAsked), 0, 0, byte(Deleted), 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, o := New(), observer{}
		for n := 0; len(data) >= 3 && n < fuzzLen; n++ {
			ev := fuzzEvent(data)
			data = data[3:]
			before := fingerprint(m)
			effects, err := m.Step(ev)
			if err != nil {
				mustRefuse(t, m, ev, err, effects, before)
				continue
			}
			for _, e := range effects {
				if err := o.take(e); err != nil {
					t.Fatalf("%v of %q: the observer was told a lie: %v", ev.Kind, ev.Proc, err)
				}
			}
		}
	})
}

// mustRefuse: a refusal has a class and leaves everything as it was.
func mustRefuse(t *testing.T, m *Machine, ev Event, err error, effects []Effect, before string) {
	t.Helper()
	if len(effects) != 0 || fingerprint(m) != before {
		t.Fatalf("%v of %q: refused, and something has changed: %v", ev.Kind, ev.Proc, err)
	}
	classed := errors.Is(err, ErrAbsent) || errdefs.IsAlreadyExists(err) || errdefs.IsFailedPrecondition(err)
	if IsContract(err) == classed || errors.Is(err, ErrContract) != errdefs.IsInternal(err) {
		t.Fatalf("%v of %q: a refusal of no class, or of two: %v", ev.Kind, ev.Proc, err)
	}
}

// FuzzScript feeds lines to the parser of the scripts and what it makes of them to
// a machine: neither panics.
func FuzzScript(f *testing.F) {
	f.Add("create? shared\ncreated pid=7\nstart?\nexited status=3\nstarted\nkill-all-done\nlooked oom\ndelete?\ndeleted\n")
	f.Add("exec? a\nstart? a\nstarted a pid=(1,2)\nexited a status=-1\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := &script{m: New()}
		for len(text) > 0 {
			var line string
			line, text = cutLine(text)
			cmd, args, err := datadriven.ParseLine(line)
			if err != nil || cmd == "" {
				continue
			}
			ev, err := parseEvent(cmd, args)
			if err != nil {
				continue
			}
			if _, err := s.step(ev); err != nil {
				t.Fatalf("%q: the observer was told a lie: %v", line, err)
			}
			s.state()
		}
	})
}

func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return line, rest
}

// fingerprint is all that a machine remembers.
func fingerprint(m *Machine) string {
	b := make([]byte, 0, 128)
	b = fmt.Append(b, m.state, m.pid, m.exit.Status, m.shared, m.deferred, m.started, m.killing, m.looking)
	for _, p := range []Proc{"a", "b", "c"} {
		if e := m.execs[p]; e != nil {
			b = fmt.Append(b, p, e.state, e.pid, e.exit.Status)
		}
	}
	return string(b)
}
