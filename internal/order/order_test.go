package order

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var t0 = time.Unix(1700000000, 0)

// Short hands for the events of the tests: container c, exec e unless said.
func created(pid uint32) Event { return Event{Kind: Created, Container: "c", Pid: pid} }
func started(pid uint32) Event { return Event{Kind: Started, Container: "c", Pid: pid} }
func exited(pid, status uint32) Event {
	return Event{Kind: Exited, Container: "c", Exec: "c", Pid: pid, Status: status, At: t0}
}
func deleted(pid, status uint32) Event {
	return Event{Kind: Deleted, Container: "c", Pid: pid, Status: status, At: t0}
}
func execAdded(id string) Event { return Event{Kind: ExecAdded, Container: "c", Exec: id} }
func execStarted(id string, pid uint32) Event {
	return Event{Kind: ExecStarted, Container: "c", Exec: id, Pid: pid}
}
func execExited(id string, pid, status uint32) Event {
	return Event{Kind: Exited, Container: "c", Exec: id, Pid: pid, Status: status, At: t0}
}
func sent(e Event, ms int) Event {
	e.Sent = t0.Add(time.Duration(ms) * time.Millisecond)
	return e
}

func rules(vs []Violation) []Rule {
	var rs []Rule
	for _, v := range vs {
		rs = append(rs, v.Rule)
	}
	return rs
}

// play feeds the events and answers and returns what Finish found.
func play(events []Event, answers ...Answer) []Violation {
	c := New()
	for _, a := range answers {
		c.Answered(a)
	}
	for _, e := range events {
		c.Observe(e)
	}
	return c.Finish()
}

func TestOrderedStreams(t *testing.T) {
	for name, events := range map[string][]Event{
		"nothing":                  nil,
		"container":                {created(5), started(5), exited(5, 0), deleted(5, 0)},
		"without delete":           {created(5), started(5), exited(5, 3)},
		"never started, killed":    {created(5), exited(5, 137), deleted(5, 137)},
		"restored, never started":  {created(0), deleted(0, 0)},
		"restored":                 {created(0), started(9), exited(9, 0), deleted(9, 0)},
		"id used again":            {created(5), started(5), exited(5, 0), deleted(5, 0), created(6), started(6), exited(6, 1), deleted(6, 1)},
		"exec":                     {created(5), started(5), execAdded("e"), execStarted("e", 6), execExited("e", 6, 0), exited(5, 0), deleted(5, 0)},
		"exec id used again":       {created(5), execAdded("e"), execStarted("e", 6), execExited("e", 6, 0), execAdded("e"), execStarted("e", 7), execExited("e", 7, 0), exited(5, 0)},
		"exec never started":       {created(5), started(5), execAdded("e"), exited(5, 0), deleted(5, 0)},
		"exec added after the end": {created(5), started(5), exited(5, 0), execAdded("e"), deleted(5, 0)},
		"killed for its memory":    {created(5), started(5), {Kind: OOM, Container: "c"}, exited(5, 137), deleted(5, 137)},
		"paused":                   {created(5), started(5), {Kind: Paused, Container: "c"}, {Kind: Resumed, Container: "c"}, exited(5, 0)},
		"sent in order":            {sent(created(5), 1), sent(started(5), 2), sent(exited(5, 0), 2), sent(deleted(5, 0), 9)},
		"other topics":             {{Kind: Other, Container: "c"}, created(5), exited(5, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			if vs := play(events); len(vs) != 0 {
				t.Errorf("violations in a stream that is in order: %v", vs)
			}
		})
	}
}

func TestViolations(t *testing.T) {
	type stream = []Event
	for _, tt := range []struct {
		name   string
		events stream
		want   []Rule
	}{
		{"start before create", stream{started(5), created(5), exited(5, 0)}, []Rule{CreateFirst, CreateFirst}},
		{"no create", stream{exited(5, 0)}, []Rule{CreateFirst}},
		{"two creates", stream{created(5), created(5), exited(5, 0)}, []Rule{CreateDoubled}},
		{"two starts", stream{created(5), started(5), started(5), exited(5, 0)}, []Rule{StartDoubled}},
		{"start after exit", stream{created(5), exited(5, 0), started(5)}, []Rule{StartAfterExit}},
		{"start of another pid", stream{created(5), started(6), exited(6, 0)}, []Rule{StartPid}},
		{"start without pid", stream{created(0), started(0), exited(5, 0)}, []Rule{StartPid}},
		{"two exits", stream{created(5), started(5), exited(5, 0), exited(5, 137)}, []Rule{ExitDoubled}},
		{"exit of another pid", stream{created(5), started(5), exited(7, 0)}, []Rule{ExitPid}},
		{"exit without pid", stream{created(5), started(5), exited(0, 0)}, []Rule{ExitPid}},
		{"exit in the year 1", stream{created(5), {Kind: Exited, Container: "c", Pid: 5}}, []Rule{ExitTime}},
		{"exit of init missing", stream{created(5), started(5)}, []Rule{ExitMissing}},
		{"created, exit missing", stream{created(5)}, []Rule{ExitMissing}},
		{"exec's exit missing", stream{created(5), execAdded("e"), execStarted("e", 6)}, []Rule{ExitMissing, ExitMissing}},
		{"init before exec, which never ends", stream{created(5), execAdded("e"), execStarted("e", 6), exited(5, 0)}, []Rule{InitNotLast, ExitMissing}},
		{"init before exec", stream{created(5), execAdded("e"), execStarted("e", 6), exited(5, 0), execExited("e", 6, 0)}, []Rule{InitNotLast, ExitAfterInit}},
		{"exec added twice", stream{created(5), execAdded("e"), execAdded("e"), exited(5, 0)}, []Rule{ExecAddedDoubled}},
		{"exec not added", stream{created(5), execStarted("e", 6), execExited("e", 6, 0), exited(5, 0)}, []Rule{ExecNotAdded}},
		{"exec started twice", stream{created(5), execAdded("e"), execStarted("e", 6), execStarted("e", 6), execExited("e", 6, 0), exited(5, 0)}, []Rule{StartDoubled}},
		{"exec without pid", stream{created(5), execAdded("e"), execStarted("e", 0), execExited("e", 6, 0), exited(5, 0)}, []Rule{StartPid}},
		{"exec's exit before its start", stream{created(5), execAdded("e"), execExited("e", 6, 0), execStarted("e", 6), exited(5, 0)}, []Rule{ExitWithoutStart, StartAfterExit}},
		{"exec's exit without anything", stream{created(5), execExited("e", 6, 0), exited(5, 0)}, []Rule{ExecNotAdded, ExitWithoutStart}},
		{"exec's exit twice", stream{created(5), execAdded("e"), execStarted("e", 6), execExited("e", 6, 0), execExited("e", 6, 0), exited(5, 0)}, []Rule{ExitDoubled}},
		{"exec's exit of another pid", stream{created(5), execAdded("e"), execStarted("e", 6), execExited("e", 9, 0), exited(5, 0)}, []Rule{ExitPid}},
		{"exec after init", stream{created(5), execAdded("e"), exited(5, 0), execStarted("e", 6), execExited("e", 6, 0)}, []Rule{ExecAfterInit, ExitAfterInit}},
		{"delete before exit", stream{created(5), started(5), deleted(5, 0), exited(5, 0)}, []Rule{DeleteBeforeExit, AfterDelete}},
		{"created, deleted, no exit", stream{created(5), deleted(5, 0)}, []Rule{DeleteBeforeExit, ExitMissing}},
		{"two deletes", stream{created(5), exited(5, 0), deleted(5, 0), deleted(5, 0)}, []Rule{DeleteDoubled}},
		{"delete says another status", stream{created(5), exited(5, 0), deleted(5, 137)}, []Rule{DeleteDiffers}},
		{"delete says another pid", stream{created(5), exited(5, 0), deleted(6, 0)}, []Rule{DeleteDiffers}},
		{"delete says no time", stream{created(5), exited(5, 0), {Kind: Deleted, Container: "c", Pid: 5}}, []Rule{DeleteDiffers}},
		{"event after delete", stream{created(5), exited(5, 0), deleted(5, 0), execAdded("e")}, []Rule{AfterDelete}},
		{"out of memory too late", stream{created(5), exited(5, 137), {Kind: OOM, Container: "c"}}, []Rule{OOMAfterExit}},
		{"overtaken", stream{sent(created(5), 1), sent(started(5), 3), sent(exited(5, 0), 2)}, []Rule{Overtaken}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vs := play(tt.events)
			if got := rules(vs); !slices.Equal(got, tt.want) {
				t.Errorf("rules %v, want %v\n%v", got, tt.want, vs)
			}
			for _, v := range vs {
				if v.Text == "" || !strings.Contains(v.String(), string(v.Rule)) || v.Container != "c" {
					t.Errorf("a violation that does not say what it is: %+v", v)
				}
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	whole := []Event{created(5), started(5), execAdded("e"), execStarted("e", 6), execExited("e", 6, 4), exited(5, 3), deleted(5, 3)}
	for _, tt := range []struct {
		name   string
		events []Event
		answer Answer
		want   []Rule
	}{
		{"create", whole, Answer{Call: CallCreate, Pid: 5}, nil},
		{"create, no event", nil, Answer{Call: CallCreate, Pid: 5}, []Rule{CreateMissing}},
		{"create of another pid", whole, Answer{Call: CallCreate, Pid: 8}, []Rule{AnswerDiffers}},
		{"failed create", nil, Answer{Call: CallCreate, Failed: true}, nil},
		{"failed create with an event", []Event{created(0)}, Answer{Call: CallCreate, Failed: true}, []Rule{CreateUnasked}},
		{"start", whole, Answer{Call: CallStart, Pid: 5}, nil},
		{"start, no event", []Event{created(5), exited(5, 0)}, Answer{Call: CallStart, Pid: 5}, []Rule{StartMissing}},
		{"failed start", []Event{created(5), exited(5, 0)}, Answer{Call: CallStart, Failed: true}, nil},
		{"failed start with an event", whole, Answer{Call: CallStart, Failed: true}, []Rule{StartUnasked}},
		{"exec start of another pid", whole, Answer{Call: CallStart, Exec: "e", Pid: 9}, []Rule{AnswerDiffers}},
		{"exec start, no event", whole, Answer{Call: CallStart, Exec: "f", Pid: 9}, []Rule{StartMissing}},
		{"failed exec start with an event", whole, Answer{Call: CallStart, Exec: "e", Failed: true}, []Rule{StartUnasked}},
		{"exec", whole, Answer{Call: CallExec, Exec: "e"}, nil},
		{"exec, no event", whole, Answer{Call: CallExec, Exec: "f"}, []Rule{ExecAddedMissing}},
		{"failed exec with an event", whole, Answer{Call: CallExec, Exec: "e", Failed: true}, []Rule{ExecAddedUnasked}},
		{"wait", whole, Answer{Call: CallWait, Status: 3, At: t0}, nil},
		{"wait, other status", whole, Answer{Call: CallWait, Status: 4, At: t0}, []Rule{AnswerDiffers}},
		{"wait, other time", whole, Answer{Call: CallWait, Status: 3, At: t0.Add(1)}, []Rule{AnswerDiffers}},
		{"wait without exit", []Event{created(0)}, Answer{Call: CallWait, At: t0}, []Rule{AnswerWithoutExit}},
		{"wait of exec, other status", whole, Answer{Call: CallWait, Exec: "e", Status: 3, At: t0}, []Rule{AnswerDiffers}},
		{"failed wait", whole, Answer{Call: CallWait, Failed: true}, nil},
		{"delete", whole, Answer{Call: CallDelete, Pid: 5, Status: 3, At: t0}, nil},
		{"delete, other status", whole, Answer{Call: CallDelete, Pid: 5, Status: 137, At: t0}, []Rule{AnswerDiffers}},
		{"delete, no event", []Event{created(5), exited(5, 0)}, Answer{Call: CallDelete, Pid: 5, At: t0}, []Rule{DeleteMissing}},
		{"delete of exec", whole, Answer{Call: CallDelete, Exec: "e", Pid: 6, Status: 4, At: t0}, nil},
		{"failed delete", whole[:6], Answer{Call: CallDelete, Failed: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.answer.Container = "c"
			if vs := play(tt.events, tt.answer); !slices.Equal(rules(vs), tt.want) {
				t.Errorf("rules %v, want %v\n%v", rules(vs), tt.want, vs)
			}
		})
	}
}

func TestExecIdAfterItsDelete(t *testing.T) {
	c := New()
	for _, e := range []Event{created(5), started(5), execAdded("e")} {
		c.Observe(e)
	}
	c.Answered(Answer{Call: CallDelete, Container: "c", Exec: "e"})
	if vs := c.Observe(execAdded("e")); len(vs) != 0 {
		t.Errorf("an exec that was deleted before it started may be added again: %v", vs)
	}
	c.Answered(Answer{Call: CallExec, Container: "c", Exec: "e"})
	if vs := c.Observe(execAdded("e")); !slices.Equal(rules(vs), []Rule{ExecAddedDoubled}) {
		t.Errorf("added twice after a new exec call: %v", vs)
	}
}

func TestPendingEmptiesAsEventsArrive(t *testing.T) {
	c := New()
	c.Answered(Answer{Call: CallCreate, Container: "c", Pid: 5})
	if got := c.Pending(); len(got) != 1 || !strings.Contains(got[0], "no create event") {
		t.Errorf("before the create event: %q", got)
	}
	c.Observe(created(5))
	if got := c.Pending(); len(got) != 1 || !strings.Contains(got[0], "no exit") {
		t.Errorf("before the exit: %q", got)
	}
	c.Observe(exited(5, 0))
	if got := c.Pending(); len(got) != 0 {
		t.Errorf("when all has come: %q", got)
	}
	if vs := c.Violations(); len(vs) != 0 {
		t.Errorf("asking what is pending is no violation: %v", vs)
	}
}

func TestCountsAndIndex(t *testing.T) {
	c := New()
	for _, e := range []Event{{Kind: Other}, created(5), started(5), execAdded("e"), execStarted("e", 6), execExited("e", 6, 0), exited(5, 0)} {
		c.Observe(e)
	}
	vs := c.Observe(exited(5, 0))
	if len(vs) != 1 || vs[0].Index != 7 || vs[0].Rule != ExitDoubled {
		t.Errorf("the doubled exit was event 7: %v", vs)
	}
	want := Counts{Containers: 1, Execs: 1, Exits: 3, Events: 8, Violations: 1}
	if got := c.Counts(); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if n := len(c.Finish()); n != 1 || len(c.Finish()) != 1 {
		t.Errorf("Finish twice must find the same, found %d first", n)
	}
}

func TestKindNames(t *testing.T) {
	if ExecStarted.String() != "exec-started" || Kind(99).String() != "kind(99)" {
		t.Errorf("names: %v %v", ExecStarted, Kind(99))
	}
}
