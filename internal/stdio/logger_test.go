package stdio

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// script writes an executable shell script that plays a logger.
func (r *rig) script(name, body string) string {
	r.t.Helper()
	path := r.path(name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nPATH=/bin:/usr/bin\n"+body), 0o755); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *rig) content(name string) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Error(err)
	}
	return string(data)
}

func TestLogger(t *testing.T) {
	for _, scheme := range []string{"binary", "binary-v2"} {
		r := newRig(t)
		logger := r.script("logger", `d=${0%/*}
echo "$CONTAINER_ID $CONTAINER_NAMESPACE $*" >$d/given
ls /proc/$$/fd >$d/fds
trap '' TERM
cat <&3 >$d/out & cat <&4 >$d/err &
echo x >&5; exec 5>&-
wait`)
		uri := scheme + "://" + logger + "?key=a%20value&flag&key=second&z=1"
		r.open(Spec{Stdout: uri, Stderr: uri, ContainerID: "id", Namespace: "ns"})
		r.run("echo out; echo err >&2")
		if err := r.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if out, err := r.content("out"), r.content("err"); out != "out\n" || err != "err\n" {
			t.Errorf("%q, %q", out, err)
		}
		if got := r.content("given"); got != "id ns key a value flag  z 1\n" {
			t.Errorf("%q", got)
		}
		// From 10 on they are the shell's own: the script, and what it put aside.
		if got := strings.Join(strings.Fields(r.content("fds")), " "); got != "0 1 10 11 2 3 4 5" && got != "0 1 10 2 3 4 5" {
			t.Errorf("descriptors %v", got)
		}
		if n := r.leftPipes(); n != 0 {
			t.Errorf("%d pipes are left", n)
		}
	}
}

// Row 43: a logger that dies is ready by no means (see TestF07LoggerDeadAtOnce);
// one that dies later costs the output, not the process.
func TestRow43LoggerDies(t *testing.T) {
	r := newRig(t)
	gate, open := r.gate("gate")
	logger := r.script("logger", "exec 5>&-; read x <"+gate+"; exit 3")
	r.open(Spec{Stdout: "binary://" + logger})
	open()
	<-r.logger.exited
	r.run("trap '' PIPE; echo out; echo $? >" + r.path("status"))
	r.Close()
	if s := r.content("status"); s == "0\n" {
		t.Error("the process was not told that its output is lost")
	}
	if n := r.leftPipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
}

// F07: a logger that is dead at once is not ready, although its death closes the
// ready pipe; nor is one that says that it is ready and dies.
func TestF07LoggerDeadAtOnce(t *testing.T) {
	for name, script := range map[string]string{
		"fails": "exit 3", "ends": "exit 0", "is killed": "kill -9 $$", "dies when ready": "echo x >&5; exit 3",
	} {
		for _, scheme := range []string{"binary", "binary-v2"} {
			for _, terminal := range []bool{false, true} {
				tryDeadLogger(t, fmt.Sprintf("%s, %s, terminal %v", name, scheme, terminal), scheme, script, terminal)
			}
		}
	}
}

func tryDeadLogger(t *testing.T, name, scheme, script string, terminal bool) {
	t.Run(name, func(t *testing.T) {
		r := newRig(t)
		logger := r.script("logger", script)
		err := r.try(Spec{Stdout: scheme + "://" + logger, Terminal: terminal})
		// One that has said x may still be on its way to its death.
		if err == nil && strings.Contains(script, ">&5") {
			<-r.logger.exited
			err = r.logger.confirm(t.Context(), host{}, r.loggerPipe())
			r.Close()
		}
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), logger) {
			t.Errorf("%v", err)
		}
		if n := r.leftPipes(); n != 0 {
			t.Errorf("%d pipes are left", n)
		}
	})
}

// loggerPipe is our end of the logger's first pipe.
func (r *rig) loggerPipe() *os.File {
	if len(r.sinks) > 0 {
		return r.sinks[0].file
	}
	return r.given[1]
}

// F07: a logger that goes into the background leaves a reader behind and is alive.
func TestF07LoggerInTheBackground(t *testing.T) {
	r := newRig(t)
	gate := r.fifo("gate")
	logger := r.script("logger", `d=${0%/*}
{ exec 5>&-; cat <&3 >$d/out; echo end >`+gate+`; } &
exit 0`)
	r.open(Spec{Stdout: "binary://" + logger})
	r.run("echo out")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 4)); err != nil || r.content("out") != "out\n" {
		t.Errorf("%q, %v", r.content("out"), err)
	}
}

// Row 43: a logger that never gets ready is given up and killed.
func TestRow43LoggerIsNeverReady(t *testing.T) {
	r := newRig(t)
	logger := r.script("logger", `echo $$ >${0%/*}/pid; exec sleep 1000`)
	ctx, cancel := contextWithTimeout(t, 300*time.Millisecond)
	defer cancel()
	_, err := New(ctx, r.owner, nil, Spec{Stdout: "binary://" + logger})
	if !errdefs.IsDeadlineExceeded(err) {
		t.Errorf("%v", err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(r.content("pid"))); os.IsNotExist(err) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the logger lives")
		}
	}
	if n := r.leftPipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
}

// Row 29, of a logger: the error names it.
func TestRow29NoSuchLogger(t *testing.T) {
	r := newRig(t)
	plain := r.path("plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, is := range map[string]func(error) bool{
		r.path("none"): errdefs.IsFailedPrecondition,
		plain:          errdefs.IsFailedPrecondition,
		r.dir:          errdefs.IsFailedPrecondition,
	} {
		if err := r.try(Spec{Stdout: "binary://" + path}); !is(err) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := r.leftPipes(); n != 0 {
		t.Errorf("%d pipes are left", n)
	}
}

// A logger that ends by itself when the output ends needs no signal; one that
// waits for SIGTERM gets it.
func TestLoggerIsAskedToEnd(t *testing.T) {
	r := newRig(t)
	logger := r.script("logger", `d=${0%/*}
trap 'echo asked >$d/asked; exit 0' TERM
echo x >&5; exec 5>&-
cat <&3 >/dev/null
while :; do sleep 0.01; done`)
	r.open(Spec{Stdout: "binary-v2://" + logger})
	r.run("echo out")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if r.content("asked") != "asked\n" {
		t.Error("not asked")
	}
}

// A logger that reads slowly and does not catch SIGTERM loses nothing of what was
// written before the end.
func TestSlowLoggerKeepsItsOutput(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%v", terminal), func(t *testing.T) { slowLogger(t, terminal) }) // an owner each
	}
}

func slowLogger(t *testing.T, terminal bool) {
	r := newRig(t)
	logger := r.script("logger", `d=${0%/*}
exec 5>&-
sleep 0.3
cat <&3 >$d/out; echo end >$d/end`)
	r.open(Spec{Stdout: "binary://" + logger, Terminal: terminal})
	if terminal {
		p := r.terminal("echo out")
		if err := r.Attach(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wait(p)
	} else {
		r.run("echo out")
	}
	if err := errors.Join(r.Drain(t.Context()), r.Close()); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(r.content("out")); got != "out" || r.content("end") != "end\n" {
		t.Errorf("terminal %v: %q, %q", terminal, got, r.content("end"))
	}
}

func TestTerminalWithLogger(t *testing.T) {
	r := newRig(t)
	logger := r.script("logger", `d=${0%/*}
trap '' TERM
echo x >&5; exec 5>&-
cat <&3 >$d/out; cat <&4 >$d/err`)
	r.open(Spec{Stdout: "binary://" + logger, Terminal: true})
	p := r.terminal("echo out; echo err >&2")
	if err := r.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wait(p)
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := r.content("out"); got != "out\r\nerr\r\n" {
		t.Errorf("%q", got)
	}
	if got := r.content("err"); got != "" {
		t.Errorf("%q", got)
	}
}
