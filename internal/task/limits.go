package task

import "time"

// The bounds of this package. Those of the runtime calls are in package oci,
// those of the copying of output in package stdio.
const (
	// killAllTime bounds one attempt to kill what a dead init left behind, and a Kill
	// of everything.
	killAllTime = 10 * time.Second

	// killAllPause is waited before the killing is repeated after it has failed, twice
	// as long after each further failure, up to killAllPauseMax: a process in
	// uninterruptible sleep may stay there for hours.
	killAllPause    = 50 * time.Millisecond
	killAllPauseMax = 30 * time.Second

	// attachTime bounds the wait for the console and for the readers of the
	// output after the runtime has returned. containerd's clients open their ends
	// before they call, so that only a broken one comes near it.
	attachTime = 30 * time.Second

	// reapTime bounds the wait for a process that was killed because a step after
	// its start failed. Its exec goes on holding init's exit back after that; only
	// the answer to the client stops waiting.
	reapTime = 10 * time.Second

	// reserved is how many descriptors are kept for the end of containers, when they
	// become few. A runtime
	// call needs about ten at once: the pidfd, two pipes, the runtime's outputs, what
	// a fork uses to be told of a failed exec; and the state probe after it no more.
	reserved = 16

	// removePause is the pause before the shim removes again what it could not.
	removePause = 10 * time.Second

	// lookPause is the pause between two looks whether the shim is orphaned: what is
	// moved or mounted again may be missing for a moment.
	lookPause = time.Minute

	// maxExecSpec bounds the process spec of an exec, in bytes. The kernel takes at
	// most 2 MiB of arguments and environment for the usual stack limit (execve(2)),
	// and JSON may write a byte as six.
	maxExecSpec = 12 << 20

	// maxDumpLog bounds what is kept of CRIU's log when a dump fails, in bytes.
	maxDumpLog = 1 << 20

	// maxSide is the largest width and height of a terminal: struct winsize has
	// 16 bits for each (ioctl_tty(2)). More is cut to it.
	maxSide = 1<<16 - 1

	// maxSignal is the highest signal number (signal(7)).
	maxSignal = 64
)
