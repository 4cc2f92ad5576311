package calibrate

import (
	"testing"
	"time"
)

func TestFactor(t *testing.T) {
	for _, c := range []struct {
		took          time.Duration
		cpus, started int
		want          float64
	}{
		{300 * time.Millisecond, 2, 300, 1},  // nominal
		{300 * time.Millisecond, 2, 3000, 1}, // faster
		{300 * time.Millisecond, 2, 30, 10},
		{300 * time.Millisecond, 8, 120, 10},
		{900 * time.Millisecond, 2, 90, 10}, // the last start took long
		{time.Minute, 2, 1, most},
		{time.Second, 2, 0, most},
	} {
		if got := factor(c.took, c.cpus, c.started); got != c.want {
			t.Errorf("%d starts on %d CPUs in %v: %v, want %v", c.started, c.cpus, c.took, got, c.want)
		}
	}
}

func TestStretch(t *testing.T) {
	got := Stretch(time.Second)
	if got < time.Second || got > most*time.Second {
		t.Errorf("a second became %v", got)
	}
	if again := Stretch(2 * time.Second); again != 2*got {
		t.Errorf("%v, and twice that is %v", got, again)
	}
	t.Logf("starting a process takes %.1f times as long as is nominal", measured())
}
