package bootstrap

import "time"

// forsakenEnv sets how long a shim has to be alone before it looks whether it is wanted,
// as Go spells durations; 0 lets such shims stay.
//
// A shim has no future if containerd has started it and died before it created a
// container in it, if containerd has deleted its last container and did not come to say
// Shutdown (a timeout is enough), or if its containers have died while containerd was
// removed with all their bundles. A daemon that lives holds a connection to every shim
// from just after its start until it has deleted the last task, however slow it is; a
// daemon that was restarted looks for shims by their bundles.
const forsakenEnv = "LARK_FORSAKEN_AFTER"

// forsakenTime reads it. A value that cannot be read counts as none.
func forsakenTime(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return forsakenAfter
	}
	return d
}
