package bootstrap

import "time"

// forsakenEnv sets how long a shim has to be alone before it looks whether it is wanted,
// as Go spells durations; 0 lets such shims stay.
//
// A shim may have no future: one that containerd has started and died before it created a
// container in it, one whose last container was deleted by a daemon that did not come to
// say Shutdown (a timeout is enough), one whose containers have died while containerd was
// removed with all their bundles. A daemon that lives holds a connection to every shim
// from just after its start until it has deleted the last task, however slow it is, and
// one that was restarted looks for shims by their bundles.
const forsakenEnv = "LARK_FORSAKEN_AFTER"

// forsakenTime reads it. What cannot be read is as good as nothing.
func forsakenTime(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return forsakenAfter
	}
	return d
}
