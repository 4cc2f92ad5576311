package soak

import (
	"reflect"
	"testing"
)

// What was left before is known again by what it is, whatever it executes meanwhile.
func TestIdentity(t *testing.T) {
	early, late := `process pid 7: ["runc" "init"]`, `process pid 7: ["sleep" "100000"]`
	if identity(early) != identity(late) {
		t.Errorf("%q and %q are said to be two", early, late)
	}
	for _, other := range []string{`process pid 77: ["runc" "init"]`, "file /x: 7", "cgroup pid 7"} {
		if identity(other) == identity(late) {
			t.Errorf("%q and %q are said to be one", other, late)
		}
	}
}

func TestThePlanFollowsFromTheSeed(t *testing.T) {
	for wave := range 20 {
		a, b := planWave(7, wave, DefaultMost, DefaultChance), planWave(7, wave, DefaultMost, DefaultChance)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("wave %d has two plans", wave)
		}
	}
	if reflect.DeepEqual(planWave(7, 1, DefaultMost, 1), planWave(8, 1, DefaultMost, 1)) {
		t.Error("another seed, the same plan")
	}
}

// Two hundred waves have everything in them, and no more containers than asked for.
func TestThePlansHaveEverything(t *testing.T) {
	var smallest, largest = DefaultMost, 0
	places, kinds, faults := map[place]int{}, map[errand]int{}, map[faultKind]int{}
	hungry, paused, host := 0, 0, 0
	for wave := range 200 {
		p := planWave(1, wave, DefaultMost, DefaultChance)
		smallest, largest = min(smallest, len(p.boxes)), max(largest, len(p.boxes))
		if p.boxes[0].place != inPod {
			t.Errorf("wave %d leaves the pod alone", wave)
		}
		for _, f := range p.faults {
			faults[f.kind]++
		}
		for _, b := range p.boxes {
			places[b.place]++
			hungry += count(b.hungry)
			host += count(b.host)
			for i, storm := range b.storms {
				paused += count(b.pauses[i])
				for _, e := range storm {
					kinds[e]++
				}
			}
		}
	}
	if smallest != 1 || largest > DefaultMost || largest < DefaultMost*9/10 {
		t.Errorf("waves of %d to %d containers", smallest, largest)
	}
	if len(places) != 3 || len(kinds) != int(errands) || len(faults) != 2 || hungry == 0 || paused == 0 || host == 0 {
		t.Errorf("places %v, errands %v, faults %v, %d hungry, %d paused, %d in the host's pid namespace", places, kinds, faults, hungry, paused, host)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
