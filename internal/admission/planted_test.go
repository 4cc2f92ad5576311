package admission

import (
	"testing"

	"github.com/larkshim/lark/internal/planted"
)

// TestPlantedFaults shows that the tests of this package notice its faults.
func TestPlantedFaults(t *testing.T) {
	planted.Check(t, plantedFaults)
}

var plantedFaults = []planted.Fault{
	{Name: "hung-for-others", File: "admission.go", Test: "TestF12HungCallsHoldUpNothing", Crashes: true,
		Old: "		counts := l.limits.Others\n",
		New: "		counts := l.limits.Others\n		if isPlanted(\"hung-for-others\") {\n			counts = l.limits.Own\n		}\n"},
	{Name: "own-like-others", File: "admission.go", Test: "TestF12SerialRuntimeLosesNoCall",
		Old: "			counts = l.limits.Own",
		New: "			counts = l.limits.Others"},
	{Name: "last-first", File: "admission.go", Test: "TestF12FirstComeFirstServed",
		Old: "		t := n.turns[0]\n		n.turns = n.turns[1:]",
		New: "		t := n.turns[0]\n		if k := len(n.turns) - 1; isPlanted(\"last-first\") {\n			t, n.turns = n.turns[k], n.turns[:k]\n		} else {\n			n.turns = n.turns[1:]\n		}"},
	{Name: "no-turns", File: "admission.go", Test: "TestF12ContainersTakeTurns",
		Old: "			l.lines = append(l.lines, n)\n		}\n		l.waiting--",
		New: "			if isPlanted(\"no-turns\") {\n				l.lines = slices.Insert(l.lines, 0, n)\n			} else {\n				l.lines = append(l.lines, n)\n			}\n		}\n		l.waiting--"},
	{Name: "one-lane", File: "admission.go", Test: "TestF12UrgentHasALaneOfItsOwn",
		Old: "lane: &q.lanes[l],",
		New: "lane: &q.lanes[map[bool]Lane{false: l}[isPlanted(\"one-lane\")]],"},
	{Name: "gone-and-waiting", File: "admission.go", Test: "TestF12CallersLeave",
		Old: "		t.Leave()\n		return nil, fmt",
		New: "		if !isPlanted(\"gone-and-waiting\") {\n			t.Leave()\n		}\n		return nil, fmt"},
	{Name: "no-bound", File: "admission.go", Test: "TestF12QueueIsBounded", Crashes: true,
		Old: "	if l.waiting >= maxWaiting {",
		New: "	if l.waiting >= maxWaiting && !isPlanted(\"no-bound\") {"},
	{Name: "one-too-many", File: "admission.go", Test: "TestF12FirstComeFirstServed",
		Old: "		if l.counted(n.container, now) >= l.width {",
		New: "		if l.counted(n.container, now) >= l.width+map[bool]int{true: 1}[isPlanted(\"one-too-many\")] {"},
	{Name: "never-woken", File: "admission.go", Test: "TestF12HungCallsHoldUpNothing", Crashes: true,
		Old: "	l.wakeAt(now)", New: ""},
	{Name: "not-woken-again", File: "admission.go", Test: "TestF12HungCallsHoldUpNothing", Crashes: true,
		Old: "		l.timer.Reset(next)", New: ""},
	{Name: "leave-admits-none", File: "admission.go", Test: "TestF12UrgentHasALaneOfItsOwn",
		Old: "		l.running = slices.Delete(l.running, i, i+1)\n		l.learn(time.Since(t.since))\n	}\n	l.admit()",
		New: "		l.running = slices.Delete(l.running, i, i+1)\n		l.learn(time.Since(t.since))\n	}\n	if !isPlanted(\"leave-admits-none\") {\n		l.admit()\n	}"},
	{Name: "left-once-counts-twice", File: "admission.go", Test: "TestF12AtRandom",
		Old: "		l.waiting--\n		if n.turns",
		New: "		l.waiting -= 1 + map[bool]int{true: 1}[isPlanted(\"left-once-counts-twice\")]\n		if n.turns"},
	{Name: "wide-at-once", File: "admission.go", Test: "TestF12SerialRuntimeLosesNoCall",
		Old: "log, limits, min(narrow, limits.AtOnce)\n",
		New: "log, limits, map[bool]int{false: min(narrow, limits.AtOnce), true: limits.AtOnce}[isPlanted(\"wide-at-once\")]\n"},
	{Name: "never-wide", File: "admission.go", Test: "TestF12QuickCallsWidenTheQueue",
		Old: "		l.width = min(l.width+1, l.limits.AtOnce)", New: ""},
	{Name: "never-narrow", File: "admission.go", Test: "TestF12QuickCallsWidenTheQueue",
		Old: "		l.width = min(narrow, l.limits.AtOnce)", New: ""},
}
