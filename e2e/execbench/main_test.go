package main

import (
	"strings"
	"testing"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct{ in, want []time.Duration }{
		{nil, []time.Duration{0}},
		{[]time.Duration{5}, []time.Duration{5}},
		{[]time.Duration{9, 1, 5}, []time.Duration{5}},
		{[]time.Duration{9, 1, 5, 7}, []time.Duration{6}},
	} {
		if got := median(tt.in); got != tt.want[0] {
			t.Errorf("median of %v: %v, want %v", tt.in, got, tt.want[0])
		}
	}
}

func TestVerdict(t *testing.T) {
	r := &result{version: "2.4.2", execs: 100, most: asGood, own: []time.Duration{time.Second}, lark: []time.Duration{1040 * time.Millisecond}}
	if !strings.Contains(r.String(), "ratio 1.040 (at most 1.05: met)") {
		t.Error(r)
	}
	r.lark[0] = 1060 * time.Millisecond
	if !strings.Contains(r.String(), "MISSED") {
		t.Error(r)
	}
}

// TestOneRound runs the benchmark itself, small, under every daemon.
func TestOneRound(t *testing.T) {
	for _, containerd := range daemon.Containerds() {
		r, err := compare(t.Context(), containerd, options{execs: 3, rounds: 1, slowRounds: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.lark) != 1 || len(r.own) != 1 || r.lark[0] == 0 || r.own[0] == 0 {
			t.Errorf("one round of each: %+v", r)
		}
		t.Log(r)
	}
}
