package lifecycle

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// The scripts in testdata/scripts tell the races that shims were broken by, one a
// file, named by the number of the issue or of the weakness. Rewrite what they
// expect with `go test ./lifecycle -run TestScripts -rewrite`, and read the diff.
//
// A directive is an event: its name, the exec concerned (none is init) and, where
// they count, pid=, status=, shared, deferred, oom. What follows the dashes is what
// the machine makes of it: its effects in order, "ok" if there are none, or the
// refusal. Two more directives: `given STATE [shared] [EXEC...]` brings a new
// container there without telling how, with the execs running; `state` is what
// clients are told.

// script is a script being played.
type script struct {
	m *Machine
	o observer
}

var scriptPids = map[Proc]int{Init: initPid, "a": 101, "b": 102, "c": 103}

// parseEvent reads an event from a directive.
func parseEvent(cmd string, args []datadriven.CmdArg) (Event, error) {
	k := slices.Index(kindNames[:], cmd)
	if k < 0 {
		return Event{}, fmt.Errorf("no such event: %q", cmd)
	}
	ev := Event{Kind: Kind(k)}
	pid := -1
	for _, a := range args {
		var n int
		if len(a.Vals) == 1 {
			var err error
			if n, err = strconv.Atoi(a.Vals[0]); err != nil {
				return Event{}, fmt.Errorf("%s: %w", a.Key, err)
			}
		}
		switch a.Key {
		case "pid":
			pid = n
		case "status":
			ev.Exit.Status = uint32(n)
		case "shared":
			ev.Shared = true
		case "deferred":
			ev.Deferred = true
		case "oom":
			ev.OOM = true
		default:
			if len(a.Vals) != 0 {
				return Event{}, fmt.Errorf("no such argument: %q", a.Key)
			}
			ev.Proc = Proc(a.Key)
		}
	}
	if ev.Kind == Created || ev.Kind == Started {
		if ev.Pid = pid; pid < 0 {
			ev.Pid = scriptPids[ev.Proc]
		}
	}
	return ev, nil
}

func procName(p Proc) string {
	if p == Init {
		return "init"
	}
	return string(p)
}

func effectLine(e Effect) string {
	switch {
	case e.Kind == Announce && e.Topic == TopicExit:
		return fmt.Sprintf("announce exit of %s, pid %d, status %d", procName(e.Proc), e.Pid, e.Exit.Status)
	case e.Kind == Announce && e.Pid != 0 && (e.Topic == TopicCreate || e.Topic == TopicStart || e.Topic == TopicExecStarted):
		return fmt.Sprintf("announce %v of %s, pid %d", e.Topic, procName(e.Proc), e.Pid)
	case e.Kind == Announce:
		return fmt.Sprintf("announce %v of %s", e.Topic, procName(e.Proc))
	case e.Kind == Watch || e.Kind == Release:
		return fmt.Sprintf("%v %s", e.Kind, procName(e.Proc))
	}
	return e.Kind.String()
}

// step plays one event and tells what came of it.
func (s *script) step(ev Event) (string, error) {
	effects, err := s.m.Step(ev)
	if err != nil {
		return "refused: " + err.Error() + "\n", nil
	}
	if len(effects) == 0 {
		return "ok\n", nil
	}
	var b strings.Builder
	for _, e := range effects {
		if err := s.o.take(e); err != nil {
			return "", err
		}
		b.WriteString(effectLine(e) + "\n")
	}
	return b.String(), nil
}

var givenStates = map[string][]string{
	"nothing": {},
	"created": {"create?", "created"},
	"running": {"create?", "created", "start?", "started"},
}

// given brings a new container into a state.
func (s *script) given(args []datadriven.CmdArg) error {
	*s = script{m: New()}
	var events []string
	for i, a := range args {
		switch {
		case i == 0:
			to, ok := givenStates[a.Key]
			if !ok {
				return fmt.Errorf("no such state: %q", a.Key)
			}
			events = append(events, to...)
		case a.Key == "shared":
			events[0] += " shared"
		default:
			events = append(events, "exec? "+a.Key, "start? "+a.Key, "started "+a.Key)
		}
	}
	for _, line := range events {
		cmd, args, err := datadriven.ParseLine(line)
		if err != nil {
			return err
		}
		ev, err := parseEvent(cmd, args)
		if err != nil {
			return err
		}
		if out, err := s.step(ev); err != nil || strings.HasPrefix(out, "refused") {
			return fmt.Errorf("%s: %s %v", line, out, err)
		}
	}
	return nil
}

var statusNames = []string{"unknown", "created", "running", "pausing", "paused", "stopped"}

// state is what clients are told of every process.
func (s *script) state() string {
	ids := []Proc{Init}
	s.m.Execs(func(p Proc, _ View) bool { ids = append(ids, p); return true })
	slices.Sort(ids)
	var b strings.Builder
	for _, p := range ids {
		v, ok := s.m.View(p)
		if !ok {
			fmt.Fprintf(&b, "%s: not found\n", procName(p))
			continue
		}
		fmt.Fprintf(&b, "%s: %s", procName(p), statusNames[v.Status])
		if v.Status == StatusStopped {
			fmt.Fprintf(&b, ", status %d", v.Exit.Status)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestScripts(t *testing.T) {
	for _, want := range []string{"8557", "9103", "9719", "9999", "10589",
		"W1", "W2", "W3", "W4", "W9", "W10", "W11", "W12", "W18"} {
		if files, _ := filepath.Glob("testdata/scripts/" + want + "-*.txt"); len(files) == 0 {
			t.Errorf("no script tells %s", want)
		}
	}
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{m: New()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "given":
				if err := s.given(d.CmdArgs); err != nil {
					t.Fatalf("%s: %v", d.Pos, err)
				}
				return "ok\n"
			case "state":
				return s.state()
			}
			ev, err := parseEvent(d.Cmd, d.CmdArgs)
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			out, err := s.step(ev)
			if err != nil {
				t.Fatalf("%s: the observer was told a lie: %v", d.Pos, err)
			}
			return out
		})
	})
}
