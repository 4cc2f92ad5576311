package rootfs

import "time"

// Every limit of this package, with the reason for it.
const (
	// maxMounts bounds what one request may ask for. A snapshotter sends one mount, an image with volumes a few; every
	// one of them costs the whole machine a line in its mount tables.
	maxMounts = 256

	// maxData is what mount(2) takes of options: a page with its closing NUL. The kernel's page is what counts, but
	// where that is larger than the smallest there is nothing to gain.
	maxData = 4095

	// busyFirst, busyMost and busyTotal pace the repetition of an unmount that finds the mount in use: some monitor on
	// the host looks into every file system, for a moment. After that the mount is detached, which cannot fail.
	busyFirst = time.Millisecond
	busyMost  = 64 * time.Millisecond
	busyTotal = 500 * time.Millisecond

	// maxStacked bounds how often one place is unmounted: mounts on one another are ours, so there are at most these.
	maxStacked = 2 * maxMounts

	// loopTries is how often a free loop device may be taken by somebody else between finding and using it.
	loopTries = 100

	// helperTime bounds a program that mounts. It may talk to a storage across the network; kubelet allows a runtime request
	// two minutes.
	helperTime = 2 * time.Minute

	// outputGrace is how long output is still awaited after a helper program has exited: a daemon that it left behind
	// may hold the pipe.
	outputGrace = 100 * time.Millisecond

	// maxTable bounds the mount table, read only where mounts are below one another.
	maxTable = 64 << 20
)
