package bootstrap

import "testing"

func TestKillPending(t *testing.T) {
	for text, want := range map[string]bool{
		"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n": false,
		"SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n":           true,
		"SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n":           true,
		"SigPnd:\t0000000000000200\nSigBlk:\t0000000000000100\n":           false,
		"SigPnd:\tgarbage\n": false,
		"":                   false,
	} {
		if got := killPending([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
