package soak

// The plan of one wave: how many containers, what each does, what is done to
// them. It follows from the seed and the number of the wave alone; only what
// falls together is left to chance.

import (
	"math"
	"math/rand/v2"
	"time"
)

// place is the shim that a container lives in.
type place int

const (
	inPod  place = iota // the shim that lives as long as the soak
	inMate              // a shim that several containers of the wave share
	alone               // a shim of its own
)

// errand is what one exec does.
type errand int

const (
	quick   errand = iota // exits at once with a status of its own
	orphans               // leaves children behind that end soon
	leaver                // leaves a child behind that does not end by itself
	speaker               // writes to a named pipe, and exits
	lasting               // runs until it is killed
	absent                // has no program
	errands               // how many kinds there are
)

// boxPlan is the life of one container.
type boxPlan struct {
	place   place
	host    bool       // shares the machine's pid namespace
	hungry  bool       // takes more memory than it may, and dies of it
	sandbox bool       // names its group by the annotation of Kubernetes
	storms  [][]errand // execs, those of one storm at once
	pauses  []bool     // whether it is paused and resumed after the storm
}

// fault is what is done to the wave, once.
type fault struct {
	kind  faultKind
	after time.Duration // since the fault before
}

type faultKind int

const (
	killContainerd faultKind = iota
	killShim
)

// wavePlan is one wave.
type wavePlan struct {
	boxes  []boxPlan
	faults []fault
}

const (
	// stormExecs is the most execs of one container at once; waveExecs is about
	// how many a wave has, so that large waves do not take ten times as long.
	stormExecs = 6
	waveExecs  = 160
	// faultGap is the longest pause before a fault.
	faultGap = 3 * time.Second
	// Chances, of one.
	chancePod    = 0.6
	chanceMate   = 0.2
	chanceHost   = 0.3
	chanceHungry = 0.04
	chancePause  = 0.3
)

// planWave makes the plan of a wave of at most most containers. chance is that of
// each fault.
func planWave(seed uint64, wave, most int, chance float64) wavePlan {
	r := rand.New(rand.NewPCG(seed, uint64(wave)))
	// Small waves are as frequent as large ones: every size has its own faults.
	n := int(math.Exp(r.Float64() * math.Log(float64(most)+1)))
	n = max(1, min(n, most))
	var p wavePlan
	for range n {
		p.boxes = append(p.boxes, planBox(r, n))
	}
	p.boxes[0].place = inPod // a shim that was not called at all has not come to rest from anything
	if r.Float64() < chance {
		p.faults = append(p.faults, fault{killContainerd, gap(r)})
	}
	for range 2 {
		if r.Float64() < chance {
			p.faults = append(p.faults, fault{killShim, gap(r)})
		}
	}
	r.Shuffle(len(p.faults), func(i, j int) { p.faults[i], p.faults[j] = p.faults[j], p.faults[i] })
	return p
}

func gap(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(faultGap))) }

func planBox(r *rand.Rand, wave int) boxPlan {
	b := boxPlan{place: alone, host: r.Float64() < chanceHost, hungry: r.Float64() < chanceHungry, sandbox: r.IntN(2) == 0}
	switch x := r.Float64(); {
	case x < chancePod:
		b.place = inPod
	case x < chancePod+chanceMate:
		b.place = inMate
	}
	for left := max(1, waveExecs/wave); left > 0 && len(b.storms) < 4; {
		var storm []errand
		for range 1 + r.IntN(min(left, stormExecs)) {
			storm = append(storm, errand(r.IntN(int(errands))))
		}
		left -= len(storm)
		b.storms = append(b.storms, storm)
		b.pauses = append(b.pauses, r.Float64() < chancePause)
	}
	return b
}
