package outbox

import (
	"testing"

	"github.com/larkshim/lark/internal/planted"
)

// TestPlantedFaults shows that the tests of this package notice its faults.
func TestPlantedFaults(t *testing.T) {
	planted.Check(t, plantedFaults, "-rapid.seed=1", "-rapid.nofailfile")
}

var plantedFaults = []planted.Fault{
	// Order.
	{Name: "append-at-head", File: "queue.go", Test: "TestOrderUnderRandomFailures",
		Old: "e.place = q.order.PushBack(e)",
		New: "e.place = q.order.PushFront(e)"},
	{Name: "retry-at-tail", File: "outbox.go", Test: "TestOrderUnderRandomFailures",
		Old: "	t.add(err)\n	o.stands()\n",
		New: "	t.add(err)\n	o.mu.Lock()\n	if isPlanted(\"retry-at-tail\") {\n	o.queue.order.MoveToBack(e.place)\n	o.queue.inflight = nil\n	}\n	o.mu.Unlock()\n	o.stands()\n"},
	{Name: "sent-twice", File: "outbox.go", Test: "TestTransportDelivers",
		Old: "	if err == nil {\n		o.sent = e\n",
		New: "	if isPlanted(\"sent-twice\") && err == nil {\n	_ = o.transport.Send(attempt, o.request(e.payload))\n	}\n	if err == nil {\n		o.sent = e\n"},
	{Name: "time-of-append", File: "outbox.go", Test: "TestDelivery",
		Old: "if e.At.IsZero() {",
		New: "if e.At.IsZero() || isPlanted(\"time-of-append\") {"},

	// Waking up and draining.
	{Name: "no-wake-up", File: "outbox.go", Test: "TestAppendWakesARestingOutbox",
		Old: "	case o.wake <- struct{}{}:\n	default:",
		New: "	case map[bool]chan struct{}{false: o.wake}[isPlanted(\"no-wake-up\")] <- struct{}{}:\n	default:"},
	{Name: "wake-up-lost", File: "outbox.go", Test: "TestNoWakeUpIsLost",
		Old: "		if e == nil {\n			select {\n",
		New: "		if e == nil {\n			if isPlanted(\"wake-up-lost\") {\n	time.Sleep(time.Millisecond)\n	select {\n	case <-o.wake:\n	default:\n	}\n	}\n			select {\n"},
	{Name: "drain-early", File: "outbox.go", Test: "TestDrain",
		Old: "	if e == nil {\n		for _, c := range o.empty",
		New: "	if e == nil || isPlanted(\"drain-early\") {\n		for _, c := range o.empty"},
	{Name: "drain-without-the-head", File: "outbox.go", Test: "TestDrainWaitsForTheHead",
		Old: "	o.mu.Lock()\n	if o.queue.len() == 0 {\n		o.mu.Unlock()",
		New: "	o.mu.Lock()\n	if o.queue.len() == 0 || isPlanted(\"drain-without-the-head\") && o.queue.len() == 1 && o.queue.inflight != nil {\n		o.mu.Unlock()"},
	{Name: "append-after-close", File: "outbox.go", Test: "TestClose",
		Old: "if err == nil && o.closed {",
		New: "if err == nil && o.closed && !isPlanted(\"append-after-close\") {"},

	// Failures.
	{Name: "first-retry-waits", File: "outbox.go", Test: "TestFirstRetryIsImmediate",
		Old: "if t.failures < 2 {",
		New: "if t.failures < 2 && !isPlanted(\"first-retry-waits\") {"},
	{Name: "back-off-of-an-hour", File: "outbox.go", Test: "TestRow51RestartedDaemonIsFoundSoon",
		Old: "return doubled(minBackoff, t.failures-2, maxBackoff)",
		New: "return doubled(minBackoff, t.failures-2, time.Hour)"},
	{Name: "no-more-patience", File: "outbox.go", Test: "TestRow54HungDaemon",
		Old: "func (t *trouble) patience() time.Duration { return",
		New: "func (t *trouble) patience() time.Duration {\n	if isPlanted(\"no-more-patience\") {\n	return firstAttempt\n	}\n	return"},
	{Name: "refused-exit-dropped", File: "outbox.go", Test: "TestInvalidEvents",
		Old: "t.refusals >= maxRefusals && e.kind >= ExecAdded",
		New: "t.refusals >= maxRefusals && (e.kind >= ExecAdded || isPlanted(\"refused-exit-dropped\"))"},
	{Name: "silent-connection-kept", File: "transport.go", Test: "TestTransportDeadline",
		Old: "	t.drop()\n	// The write's deadline",
		New: "	if !isPlanted(\"silent-connection-kept\") {\n	t.drop()\n	}\n	// The write's deadline"},
	{Name: "write-without-deadline", File: "transport.go", Test: "TestRow54TransportToADeafServer", Hangs: true,
		Old: "if deadline, ok := ctx.Deadline(); ok {",
		New: "if deadline, ok := ctx.Deadline(); ok && !isPlanted(\"write-without-deadline\") {"},

	// What is dropped.
	{Name: "exit-dropped", File: "queue.go", Test: "TestQueueKeepsItsPromises",
		Old: "	case k == OOM:\n",
		New: "	case k == OOM || k == Exit && isPlanted(\"exit-dropped\"):\n"},
	{Name: "no-bound", File: "queue.go", Test: "TestRow51OutageOfAnHour",
		Old: "for q.droppable > q.limit {",
		New: "for q.droppable > q.limit && !isPlanted(\"no-bound\") {"},
	{Name: "drop-not-counted", File: "queue.go", Test: "TestQueueKeepsItsPromises",
		Old: "	q.order.Remove(e.place)\n	q.dropped[e.kind]++",
		New: "	q.order.Remove(e.place)\n	if !isPlanted(\"drop-not-counted\") {\n	q.dropped[e.kind]++\n	}"},
	{Name: "head-dropped", File: "queue.go", Test: "TestQueueKeepsItsPromises", Crashes: true,
		Old: "	q.spare(e)\n	if s := e.story; s != nil && !s.heard {",
		New: "	if !isPlanted(\"head-dropped\") {\n	q.spare(e)\n	}\n	if s := e.story; s != nil && !s.heard {"},
	{Name: "rest-of-a-dropped-exec", File: "queue.go", Test: "TestQueueKeepsItsPromises",
		Old: "	s.muted = true", New: ""},
	{Name: "muted-for-ever", File: "queue.go", Test: "TestQueueKeepsItsPromises",
		Old: "		q.forgetMuted(key.container)", New: ""},
	{Name: "new-life-muted", File: "queue.go", Test: "TestQueueUsesAnIdAgain",
		Old: "if s == nil || e.kind == ExecAdded {",
		New: "if s == nil || e.kind == ExecAdded && !isPlanted(\"new-life-muted\") {"},
	{Name: "notes-last", File: "queue.go", Test: "TestQueueDropsInTheStatedOrder",
		Old: "	case q.notes.Len() > 0:",
		New: "	case q.notes.Len() > 0 && (!isPlanted(\"notes-last\") || q.droppable == q.notes.Len()):"},
	{Name: "oom-before-exec", File: "queue.go", Test: "TestQueueDropsInTheStatedOrder",
		Old: "	case q.unheard.Len() > 0:",
		New: "	case q.unheard.Len() > 0 && (!isPlanted(\"oom-before-exec\") || q.ooms.Len() == 0):"},
	{Name: "heard-to-the-back", File: "queue.go", Test: "TestQueueDropsTheHeardExecThatIsNext",
		Old: "s.place = q.heard.PushFront(s)",
		New: "s.place = q.heard.PushBack(s)"},

	// Pace.
	{Name: "pace-overtaken", File: "pace.go", Test: "TestPaceIsFirstComeFirstServed",
		Old: "o.queue.len() < paceAt && len(o.paced) == 0 ||",
		New: "o.queue.len() < paceAt && (len(o.paced) == 0 || isPlanted(\"pace-overtaken\")) ||"},
	{Name: "pace-all-at-once", File: "pace.go", Test: "TestPaceIsFirstComeFirstServed",
		Old: "o.paced = o.paced[1:]; o.queue.len() > 0 {",
		New: "o.paced = o.paced[1:]; o.queue.len() > 0 && !isPlanted(\"pace-all-at-once\") {"},
	{Name: "pace-last-first", File: "pace.go", Test: "TestPaceIsFirstComeFirstServed",
		Old: "o.paced = append(o.paced, turn)",
		New: "o.paced = append([]chan struct{}{turn}, o.paced...)"},
	{Name: "pace-not-left", File: "pace.go", Test: "TestPaceDoesNotWaitForTheSilent",
		Old: "	o.leave(turn)", New: ""},
	{Name: "pace-for-the-absent", File: "outbox.go", Test: "TestPaceDoesNotWaitForTheSilent",
		Old: "	o.moved = time.Time{}", New: ""},
	{Name: "pace-thinks-it-hangs", File: "outbox.go", Test: "TestPaceHoldsABurst",
		Old: "	o.moved = time.Now()\n	o.admit()",
		New: "	if !isPlanted(\"pace-thinks-it-hangs\") {\n	o.moved = time.Now()\n	}\n	o.admit()"},
	{Name: "pace-gives-up", File: "pace.go", Test: "TestPaceWaitsForTheSlow",
		Old: "left > 0 && time.Since(begun) < paceLongest",
		New: "left > 0 && time.Since(begun) < paceLongest && !isPlanted(\"pace-gives-up\")"},
	{Name: "pace-for-ever", File: "pace.go", Test: "TestPaceDoesNotWaitForTheSilent",
		Old: "left := paceTime - o.still()",
		New: "left := paceTime - map[bool]time.Duration{false: o.still()}[isPlanted(\"pace-for-ever\")]"},
}
