// Command lark-stub-runtime is an OCI runtime that does nothing, as fast as a process can
// do it: `create` and `exec` fork a process and write its pid down, and that process ends
// at once, waits, or writes. A shim that drives it shows its own cost. It isolates
// nothing (a container has a pid namespace if it asks for one, and no other) and is of
// no use but for measuring.
//
// Go's own start takes about a millisecond, several times what a fork does. So this
// program does without: linked with -E main.entry, the kernel enters it in assembly, and
// everything reached from there follows these rules: nosplit, nothing allocated, no
// maps, strings built or interfaces, nothing of the standard library, only raw system
// calls. Linked as usual it does the same, after Go's start, with a million times the code.
//
// What it understands: create, start, exec, kill, delete, state, ps, and anything else by
// answering with success. The container's process is chosen by what stands in config.json
// or the exec's process: "true" ends at once (init: when started), "lark-write" writes
// writeTotal bytes to standard output, anything else waits to be killed.
package main

import "unsafe"

// writeTotal is how many bytes "lark-write" writes.
const writeTotal = 256 << 20

// The sizes of the static buffers below.
const (
	pathMax = 4096
	textMax = 64 << 10 // a process specification is 1 to 4 KiB, a config.json 3 to 20
)

// Memory is static: there is no allocator.
var (
	path  [pathMax]byte
	text  [textMax]byte
	out   [256]byte
	block [64 << 10]byte
)

// args is what matters of the command line; each is a C string, or 0.
type args struct {
	command, root, bundle, process, pidFile, id uintptr
	force                                       bool
}

// start is called by entry with the address of argc, as the kernel left it.
//
//go:nosplit
func start(sp uintptr) {
	argc := int(*at(sp))
	exit(run(argc, sp+unsafe.Sizeof(sp)))
}

// run does the command; argv is an array of argc C strings.
//
//go:nosplit
func run(argc int, argv uintptr) int {
	var a args
	parse(&a, argc, argv)
	switch {
	case a.command == 0:
		return 0
	case equal(a.command, "create"):
		return create(&a)
	case equal(a.command, "start"):
		return begin(&a)
	case equal(a.command, "exec"):
		return execute(&a)
	case equal(a.command, "kill"):
		return kill(&a)
	case equal(a.command, "delete"):
		return remove(&a)
	case equal(a.command, "state"):
		return state(&a)
	case equal(a.command, "ps"):
		return ps(&a)
	case equal(a.command, "--version"), equal(a.command, "-v"):
		say("runc version 1.1.5\nspec: 1.0.2\n")
	}
	return 0
}

// parse takes the options that the shims use, before and after the command. What it does
// not know takes no value, except those listed.
//
//go:nosplit
func parse(a *args, argc int, argv uintptr) {
	for i := 1; i < argc; i++ {
		s := arg(argv, i)
		next := uintptr(0)
		if i+1 < argc {
			next = arg(argv, i+1)
		}
		switch {
		case equal(s, "--root"):
			a.root = next
			i++
		case equal(s, "--bundle"):
			a.bundle = next
			i++
		case equal(s, "--process"):
			a.process = next
			i++
		case equal(s, "--pid-file"):
			a.pidFile = next
			i++
		case equal(s, "--log"), equal(s, "--log-format"), equal(s, "--console-socket"), equal(s, "--format"),
			equal(s, "--pidfd-socket"), equal(s, "-f"), equal(s, "--preserve-fds"):
			i++
		case equal(s, "--force"):
			a.force = true
		case a.command == 0 && (byteAt(s, 0) != '-' || equal(s, "--version") || equal(s, "-v")):
			a.command = s
		case byteAt(s, 0) != '-' && a.id == 0:
			a.id = s
		}
	}
}

// create forks the container's init, in a pid namespace if config.json asks for one.
//
//go:nosplit
func create(a *args) int {
	p := join(a.bundle, "/config.json")
	n := read(p)
	if n < 0 {
		return fail("no config.json\n")
	}
	flags := uintptr(0)
	if find(n, `"type":"pid"`) || find(n, `"type": "pid"`) {
		flags = cloneNewPID
	}
	pid := fork(flags)
	if pid == 0 {
		if find(n, `"lark-write"`) {
			pour()
		}
		wait()
	}
	if pid < 0 {
		return fail("no fork\n")
	}
	// Whether `start` is to end it is remembered by a sign before the pid.
	short := find(n, `"true"`)
	p = statePath(a)
	if save(p, pid, short) < 0 {
		makeDirs(a.root)
		p = statePath(a)
		if save(p, pid, short) < 0 {
			syscall3(sysKill, uintptr(pid), sigKill, 0)
			return fail("cannot write the state\n")
		}
	}
	if a.pidFile != 0 && save(a.pidFile, pid, false) < 0 {
		return fail("cannot write the pid file\n")
	}
	return 0
}

// begin ends an init whose program is "true", as if it had run. SIGKILL, because nothing
// else reaches a pid 1 without handlers.
//
//go:nosplit
func begin(a *args) int {
	pid, short := load(a)
	if pid <= 0 {
		return fail("container does not exist\n")
	}
	if short {
		syscall3(sysKill, uintptr(pid), sigKill, 0)
	}
	return 0
}

// execute forks a process in the pid namespace of the container's init.
//
//go:nosplit
func execute(a *args) int {
	init, _ := load(a)
	if init <= 0 {
		return fail("container does not exist\n")
	}
	fd := pidNamespace(init)
	if fd < 0 {
		return fail("container is not running\n")
	}
	if r := syscall3(sysSetns, uintptr(fd), cloneNewPID, 0); r < 0 {
		return fail("cannot join the pid namespace\n")
	}
	n := read(a.process)
	if n < 0 {
		return fail("no process\n")
	}
	pid := fork(0)
	if pid == 0 {
		switch {
		case find(n, `"true"`):
			exit(0)
		case find(n, `"lark-write"`):
			pour()
			exit(0)
		}
		wait()
	}
	if pid < 0 {
		return fail("no fork\n")
	}
	if a.pidFile != 0 && save(a.pidFile, pid, false) < 0 {
		return fail("cannot write the pid file\n")
	}
	return 0
}

// kill always kills: the signals that a bench sends are meant to.
//
//go:nosplit
func kill(a *args) int {
	pid, _ := load(a)
	if pid <= 0 {
		return fail("container does not exist\n")
	}
	if syscall3(sysKill, uintptr(pid), sigKill, 0) < 0 {
		return fail("process already finished\n")
	}
	return 0
}

//go:nosplit
func remove(a *args) int {
	pid, _ := load(a)
	if pid <= 0 {
		if a.force {
			return 0
		}
		return fail("container does not exist\n")
	}
	if a.force {
		syscall3(sysKill, uintptr(pid), sigKill, 0)
	}
	syscall3(sysUnlinkat, atCwd, statePath(a), 0)
	return 0
}

//go:nosplit
func state(a *args) int {
	pid, _ := load(a)
	if pid <= 0 {
		return fail("container does not exist\n")
	}
	say(`{"ociVersion":"1.0.2","id":"`)
	sayC(a.id)
	if syscall3(sysKill, uintptr(pid), 0, 0) < 0 {
		say(`","status":"stopped","pid":0,"bundle":"/"}`)
		return 0
	}
	say(`","status":"running","bundle":"/","pid":`)
	sayNumber(pid)
	say("}\n")
	return 0
}

//go:nosplit
func ps(a *args) int {
	pid, _ := load(a)
	say("[")
	if pid > 0 {
		sayNumber(pid)
	}
	say("]\n")
	return 0
}

// wait is the life of a process that does nothing.
//
//go:nosplit
func wait() {
	for {
		syscall6(sysPpoll, 0, 0, 0, 0, 0, 0)
	}
}

// pour writes to standard output what "lark-write" is to write.
//
//go:nosplit
func pour() {
	for left := writeTotal; left > 0; {
		n := syscall3(sysWrite, 1, uintptr(unsafe.Pointer(&block)), uintptr(len(block)))
		if n <= 0 {
			return
		}
		left -= n
	}
}
