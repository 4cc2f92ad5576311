package lifecycle

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// updateTable writes testdata/table.txt anew: go test ./lifecycle -run TestTable -table.
var updateTable = flag.Bool("table", false, "write testdata/table.txt anew")

// TestTable keeps testdata/table.txt true: the whole of the rules at one sight.
func TestTable(t *testing.T) {
	const path = "testdata/table.txt"
	got := renderTables(theRules())
	if *updateTable {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the rules are; write it with -table and read the difference. It should be:\n%s", path, got)
	}
}

// TestTotal: every cell is written, with one meaning.
func TestTotal(t *testing.T) {
	check := func(state fmt.Stringer, k Kind, c cell) {
		meanings := 0
		for _, is := range []bool{c.refuse != nil, c.init != nil, c.exec != nil, c.nothing, c.never} {
			if is {
				meanings++
			}
		}
		if meanings != 1 || (c.unless != nil && c.init == nil) {
			t.Errorf("%v in state %v has %d meanings", k, state, meanings)
		}
		if c.refuse != nil && !slices.Contains(refusals, c.refuse) {
			t.Errorf("%v in state %v is refused in words that the table does not have", k, state)
		}
		if c.refuse != nil && k > DeleteAsked {
			t.Errorf("%v in state %v is refused, and no client asked for it", k, state)
		}
		if c.never && k <= DeleteAsked && asksOf(state, k) {
			t.Errorf("%v in state %v never happens, but clients may ask anything", k, state)
		}
	}
	for s := range numStates {
		for k := range numKinds {
			check(s, k, theRules().init[s][k])
		}
	}
	for s := range numExecStates {
		for k := range numKinds {
			check(s, k, theRules().exec[s][k])
		}
	}
}

// asksOf says whether k can be asked of what state is a state of.
func asksOf(state fmt.Stringer, k Kind) bool {
	_, exec := state.(ExecState)
	return exec && slices.Contains([]Kind{ExecAsked, StartAsked, KillAsked, DeleteAsked}, k) || !exec && k != ExecAsked
}

// renderTables is the text of the tables: events down, states across would be too
// wide, so every state has its paragraph, in it what clients get, then the rest.
func renderTables(r *rules) []byte {
	var b bytes.Buffer
	b.WriteString(`The rules of one container: every state by every event.

  .      in order, and nothing changes (for what is asked: allowed)
  name   the function that carries it out (init.go, exec.go)
  name*  the same, if what else is known of the machine allows it
  -> s   a bare change of state
  NF1    refused, in the words below: NF not found, AE already exists, FP failed precondition
  -      cannot happen while the caller keeps the contract: ErrContract

`)
	renderTable(&b, "init", numStates, func(s State, k Kind) cell { return r.init[s][k] }, func(k Kind) bool { return k != ExecAsked })
	b.WriteString("\n")
	renderTable(&b, "exec", numExecStates, func(s ExecState, k Kind) cell { return r.exec[s][k] },
		func(k Kind) bool { return !slices.Contains(containerOnly, k) })
	b.WriteString("\nWhat exec? and start? of an exec get before that, by the state of init\n\n")
	for s := range numStates {
		g := r.execGate[s]
		fmt.Fprintf(&b, "  %-16v %-6s %s\n", s, describe(cell{refuse: g.add, nothing: g.add == nil}),
			describe(cell{refuse: g.start, nothing: g.start == nil}))
	}
	b.WriteString("\nExecs that hold the exit of init back:")
	for s := range numExecStates {
		if r.live[s] {
			fmt.Fprintf(&b, " %v", s)
		}
	}
	b.WriteString("\n\nThe refusals\n\n")
	for _, err := range refusals {
		fmt.Fprintf(&b, "  %-5s %v\n", describe(cell{refuse: err}), err)
	}
	return b.Bytes()
}

// refusals are numbered in the table in this order.
var refusals = []error{errNotCreated, errFinished, errNoExec, errExists, errNoInit, errNotStarted, errStarting,
	errStarted, errStartFailed, errExited, errStillRunning, errPaused, errNotPaused, errNotRunning, errNoProcess,
	errCondemned, ErrDeleting}

// containerOnly is what never happens to an exec.
var containerOnly = []Kind{CreateAsked, PauseAsked, ResumeAsked, UpdateAsked, CheckpointAsked, Created, CreateFailed,
	Paused, PauseFailed, Resumed, ResumeFailed, KillAllDone, KillAllFailed, Looked, OutOfMemory}

// perLine is how many columns fit.
const perLine = 8

func renderTable[S interface {
	~uint8
	fmt.Stringer
}](b *bytes.Buffer, what string, states S, at func(S, Kind) cell, show func(Kind) bool) {
	var kinds []Kind
	for k := range numKinds {
		if show(k) {
			kinds = append(kinds, k)
		}
	}
	for part := range slices.Chunk(kinds, perLine) {
		rows := [][]string{{what}}
		for _, k := range part {
			rows[0] = append(rows[0], k.String())
		}
		for s := S(0); s < states; s++ {
			row := []string{s.String()}
			for _, k := range part {
				row = append(row, describe(at(s, k)))
			}
			rows = append(rows, row)
		}
		writeColumns(b, rows)
		b.WriteString("\n")
	}
}

func writeColumns(b *bytes.Buffer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, s := range row {
			width[i] = max(width[i], len(s))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, s := range row {
			fmt.Fprintf(&line, "%-*s  ", width[i], s)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// classes are the ends of the texts of refusals, which errdefs makes. The caller
// makes NotFound (NF) of what matches ErrAbsent.
var classes = map[string]string{": already exists": "AE", ": failed precondition": "FP"}

func describe(c cell) string {
	switch {
	case errors.Is(c.refuse, ErrAbsent):
		return "NF" + strconv.Itoa(1+slices.Index(refusals, c.refuse))
	case c.refuse != nil:
		text := c.refuse.Error()
		for end, class := range classes {
			if strings.HasSuffix(text, end) {
				return class + strconv.Itoa(1+slices.Index(refusals, c.refuse))
			}
		}
		return text
	case c.nothing:
		return "."
	case c.init != nil && c.unless != nil:
		return funcName(c.init) + "*"
	case c.init != nil:
		return describeInit(c)
	case c.exec != nil:
		return funcName(c.exec)
	}
	return "-"
}

// describeInit names a bare change of state by the state it leads to: such cells
// share one function.
func describeInit(c cell) string {
	name := funcName(c.init)
	if !strings.HasPrefix(name, "to.") && !strings.Contains(name, ".to") && !strings.HasPrefix(name, "init.") {
		return name
	}
	m := &Machine{rules: theRules()}
	c.init(m, Event{})
	return "-> " + m.state.String()
}

func funcName(f any) string {
	full := runtime.FuncForPC(reflect.ValueOf(f).Pointer()).Name()
	return full[strings.LastIndex(full, "lifecycle.")+len("lifecycle."):]
}
