package outbox

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// teller writes stories as a shim would: each exec added, perhaps started, and
// only then perhaps exited; ids used again after their end.
type teller struct {
	q     *queue
	stage map[execKey]Kind // the last event of each living exec
	sent  []sent           // every event pushed, in order
}

type sent struct {
	kind  Kind
	key   execKey
	story int // which life of the id
}

func (tl *teller) push(k Kind, key execKey) {
	life := 0
	for _, s := range tl.sent {
		if s.key == key && s.kind == ExecAdded {
			life++
		}
	}
	if k == ExecAdded {
		life++
	}
	tl.sent = append(tl.sent, sent{k, key, life})
	tl.q.push(k, key, &payload{topic: fmt.Sprint(len(tl.sent) - 1)})
}

func (tl *teller) step(t *rapid.T) {
	c := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "container")
	key := execKey{c, rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(t, "exec")}
	switch k := rapid.SampledFrom([]Kind{Create, Exit, OOM, Note, ExecAdded, ExecAdded, ExecAdded, ExecAdded, Delete}).Draw(t, "kind"); k {
	case ExecAdded:
		next := map[Kind]Kind{0: ExecAdded, ExecAdded: ExecStarted, ExecStarted: ExecExit, ExecExit: ExecAdded}[tl.stage[key]]
		if tl.stage[key] == ExecAdded && rapid.IntRange(0, 4).Draw(t, "never started") == 0 {
			next = ExecAdded // deleted unstarted, and the id used again
		}
		tl.stage[key] = next
		tl.push(next, key)
	case Delete: // the last of the container, and of its execs
		for key := range tl.stage {
			if key.container == c {
				delete(tl.stage, key)
			}
		}
		tl.push(k, execKey{container: c})
	default:
		tl.push(k, execKey{container: c})
	}
}

func TestQueueKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 12).Draw(t, "limit")
		tl := &teller{q: newQueue(limit), stage: map[execKey]Kind{}}
		var got []int // indexes into tl.sent of what was delivered
		deliver := func() bool {
			e := tl.q.next()
			if e == nil {
				return false
			}
			var i int
			fmt.Sscan(e.payload.topic, &i)
			if again := tl.q.next(); again != e {
				t.Fatalf("the head changed while it was in flight")
			}
			if rapid.IntRange(0, 3).Draw(t, "push while in flight") == 0 {
				tl.step(t)
			}
			got = append(got, i)
			tl.q.done()
			return true
		}
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "deliver") == 0 {
				deliver()
			} else {
				tl.step(t)
			}
			if tl.q.droppable > limit {
				t.Fatalf("%d droppable events with a limit of %d", tl.q.droppable, limit)
			}
		}
		for deliver() {
		}
		checkDelivery(t, tl, got)
	})
}

func checkDelivery(t *rapid.T, tl *teller, got []int) {
	delivered := map[int]bool{}
	last := -1
	told := map[string]Kind{}
	for _, i := range got {
		if i <= last {
			t.Fatalf("event %d after event %d", i, last)
		}
		last, delivered[i] = i, true
		s := tl.sent[i]
		if !s.kind.ofExec() {
			continue
		}
		id := fmt.Sprint(s.key, s.story)
		if want := map[Kind]Kind{ExecAdded: 0, ExecStarted: ExecAdded, ExecExit: ExecStarted}[s.kind]; told[id] != want {
			t.Fatalf("%v of exec %s after %v", s.kind, id, told[id])
		}
		told[id] = s.kind
	}
	var missing [kinds]uint64
	for i, s := range tl.sent {
		if delivered[i] {
			continue
		}
		missing[s.kind]++
		if s.kind < ExecAdded {
			t.Fatalf("%v of a container was dropped", s.kind)
		}
	}
	if missing != tl.q.dropped {
		t.Fatalf("missing by kind %v, counted %v", missing, tl.q.dropped)
	}
	if q := tl.q; q.droppable != 0 || q.notes.Len()+q.ooms.Len()+q.heard.Len()+q.unheard.Len() != 0 {
		t.Fatalf("left in the lists of an empty queue: %+v", q)
	}
	// What is remembered of dropped execs ends with their containers.
	for _, c := range []string{"a", "b"} {
		tl.q.push(Delete, execKey{container: c}, &payload{})
		tl.q.next()
		tl.q.done()
	}
	if len(tl.q.stories)+len(tl.q.muted) != 0 {
		t.Fatalf("remembered for ever: %v %v", tl.q.stories, tl.q.muted)
	}
}

// The order of drops is the one that the documentation states.
func TestQueueDropsInTheStatedOrder(t *testing.T) {
	q := newQueue(4)
	x, y, c := execKey{"c", "x"}, execKey{"c", "y"}, execKey{container: "c"}
	p := &payload{}
	q.push(ExecStarted, x, p) // containerd has heard of x before
	q.push(OOM, c, p)
	q.push(ExecAdded, y, p)
	q.push(Note, c, p)
	for i, want := range []struct {
		push Kind
		key  execKey
		kind Kind
		n    uint64
	}{
		{OOM, c, Note, 1},
		{OOM, c, ExecAdded, 1}, // y, as a whole
		{OOM, c, OOM, 1},       // the oldest
		{ExecExit, x, OOM, 2},
	} {
		q.push(want.push, want.key, p)
		if q.dropped[want.kind] != want.n {
			t.Errorf("step %d: dropped %v, want %d of %v", i, q.dropped, want.n, want.kind)
		}
	}
	q.push(ExecStarted, y, p)
	if q.dropped[ExecStarted] != 1 {
		t.Error("the rest of a dropped exec was queued")
	}
	for range 5 { // only stories of known execs are left, x the oldest of them
		q.push(ExecExit, execKey{"c", fmt.Sprint(q.len())}, p)
	}
	if q.dropped[ExecExit] == 0 || q.droppable > 4 {
		t.Errorf("dropped %v, droppable %d", q.dropped, q.droppable)
	}
}

func TestKindNames(t *testing.T) {
	seen := map[string]bool{}
	for k := Kind(1); k < kinds; k++ {
		if name := k.String(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("kind %d is called %q", k, name)
		} else {
			seen[name] = true
		}
	}
	if Kind(0).String() != "unknown" || kinds.String() != "unknown" {
		t.Error("no kind has a name")
	}
}

func BenchmarkPushFull(b *testing.B) {
	q := newQueue(MaxDroppable)
	for i := 0; b.Loop(); i++ {
		key := execKey{"c", fmt.Sprint(i)}
		for k := ExecAdded; k <= ExecExit; k++ {
			q.push(k, key, &payload{})
		}
	}
}
