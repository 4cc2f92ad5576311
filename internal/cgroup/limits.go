package cgroup

import "time"

// Every limit of this package, with the reason for it.
const (
	// maxFile bounds one file of /proc or of a cgroup. The longest in practice is the mount table: a host with a
	// thousand overlay containers has about half a megabyte of it, a layer string being up to a page long.
	maxFile = 16 << 20

	// readChunk is the first buffer of a read. It holds every file of a cgroup but blkio's on hosts with many disks.
	readChunk = 4096

	// maxSiblings bounds how many groups beside a container's are read when it is
	// created, for the sake of OOM kills that nobody could look for: each is a file
	// to open.
	maxSiblings = 128

	// maxDepth and maxGroups bound a walk over the cgroups below a container's. They are made by the container
	// (systemd in a container, Docker in Docker), so it must not be able to keep us walking.
	maxDepth  = 32
	maxGroups = 4096

	// underOOMFirst, underOOMMost and underOOMTotal pace the second look at a v1 group: the kernel signals the
	// eventfd before it picks a victim and counts the kill after: under a millisecond, but the report it prints in between
	// may take many on a serial console. After underOOMTotal the next signal or the last look, at init's exit, has to do.
	underOOMFirst = time.Millisecond
	underOOMMost  = 100 * time.Millisecond
	underOOMTotal = 5 * time.Second

	// inotifyBuffer holds many events: one is 16 bytes, the files watched have no name to report.
	inotifyBuffer = 4096
)
