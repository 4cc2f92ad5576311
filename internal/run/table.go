package run

// What is shown: one line per event, and the summary.

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larkshim/lark/internal/order"
	"github.com/larkshim/lark/internal/shimclient"
)

const tableHead = "     time  event         process        pid  status"

// jsonEvent is an event with --json.
type jsonEvent struct {
	Event      string   `json:"event"`
	Seconds    float64  `json:"seconds"` // since the run began, by the shim's time stamp
	Process    string   `json:"process"` // init, or the exec's ID
	Pid        uint32   `json:"pid,omitempty"`
	Status     *uint32  `json:"status,omitempty"`
	Violations []string `json:"violations,omitempty"`
}

// line formats an event; broken are the promises that it breaks.
func (r *runner) line(e shimclient.Event, broken []order.Violation) string {
	j := jsonEvent{Event: strings.TrimPrefix(e.Topic, "/tasks/"), Process: e.Task.Exec, Pid: e.Task.Pid}
	if !e.Task.Sent.IsZero() {
		j.Seconds = e.Task.Sent.Sub(r.begin).Seconds()
	}
	if j.Process == "" {
		j.Process = "init"
	}
	if k := e.Task.Kind; k == order.Exited || k == order.Deleted {
		j.Status = &e.Task.Status
	}
	for _, v := range broken {
		j.Violations = append(j.Violations, v.Text)
	}
	if r.o.JSON {
		text, err := json.Marshal(j)
		if err != nil {
			return err.Error() // no field can make it fail
		}
		return string(text)
	}
	return r.row(j)
}

// row is a line of the table.
func (r *runner) row(j jsonEvent) string {
	pid, status := "", ""
	if j.Pid != 0 {
		pid = fmt.Sprint(j.Pid)
	}
	if j.Status != nil {
		status = statusText(*j.Status)
	}
	if status != "" && *j.Status != 0 {
		status = r.screen.red(status)
	}
	text := fmt.Sprintf("%s  %-12s  %-9s  %7s  %s", r.screen.dim(fmt.Sprintf("%+8.3fs", j.Seconds)), j.Event, j.Process, pid, status)
	for _, v := range j.Violations {
		text += "\n           " + r.screen.red("^ out of order: "+v)
	}
	return strings.TrimRight(text, " ")
}

// statusText names the signal of a status above 128, where there is one of that number.
func statusText(status uint32) string {
	const signalled = 128
	if status > signalled {
		if name := unix.SignalName(unix.Signal(status - signalled)); name != "" {
			return fmt.Sprintf("%d (%s)", status, name)
		}
	}
	return fmt.Sprint(status)
}

// Summary writes the one line at the end, and one more for each broken promise.
func (o *Outcome) Summary(w io.Writer, opts Options, took time.Duration) error {
	if opts.JSON {
		return json.NewEncoder(w).Encode(o.document(took))
	}
	s := newScreen(opts)
	var b strings.Builder
	ran := fmt.Sprintf("%s ran in %.2f s, %s", plural(o.Counts.Containers+o.Counts.Execs, "process", "processes"), took.Seconds(), plural(o.Counts.Events, "event", "events"))
	if len(o.Violations) == 0 {
		fmt.Fprintf(&b, "%s: %s, each start told before its exit, each exit once, init's last\n", s.green("order held"), ran)
	} else {
		fmt.Fprintf(&b, "%s %s: %s\n", s.red("order broken"), plural(len(o.Violations), "time", "times"), ran)
	}
	for _, v := range o.Violations {
		fmt.Fprintf(&b, "  %s\n", v)
	}
	if o.FailedExecs > 0 {
		fmt.Fprintf(&b, "%s could not be run\n", plural(o.FailedExecs, "exec", "execs"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// document is the summary with --json.
func (o *Outcome) document(took time.Duration) any {
	type summary struct {
		Held        bool     `json:"order_held"`
		Processes   int      `json:"processes"`
		Events      int      `json:"events"`
		Exits       int      `json:"exits"`
		Violations  []string `json:"violations"`
		FailedExecs int      `json:"failed_execs"`
		Status      uint32   `json:"status"`
		Seconds     float64  `json:"seconds"`
	}
	d := summary{
		Held: len(o.Violations) == 0, Processes: o.Counts.Containers + o.Counts.Execs, Events: o.Counts.Events,
		Exits: o.Counts.Exits, FailedExecs: o.FailedExecs, Status: o.Status, Seconds: took.Seconds(), Violations: []string{},
	}
	for _, v := range o.Violations {
		d.Violations = append(d.Violations, v.String())
	}
	return map[string]any{"summary": d}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
