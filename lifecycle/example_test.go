package lifecycle_test

import (
	"fmt"

	"github.com/larkshim/lark/lifecycle"
)

// An exec is being started when init dies. Its process is dead too, before its
// start is known. Whatever comes first, what is announced is in order.
func Example() {
	m := lifecycle.New()
	for _, ev := range []lifecycle.Event{
		{Kind: lifecycle.CreateAsked},
		{Kind: lifecycle.Created, Pid: 100},
		{Kind: lifecycle.StartAsked},
		{Kind: lifecycle.Started},
		{Kind: lifecycle.ExecAsked, Proc: "probe"},
		{Kind: lifecycle.StartAsked, Proc: "probe"},
		{Kind: lifecycle.Exited, Exit: lifecycle.Exit{Status: 137}},
		{Kind: lifecycle.Started, Proc: "probe", Pid: 101},
		{Kind: lifecycle.Exited, Proc: "probe", Exit: lifecycle.Exit{Status: 1}},
		{Kind: lifecycle.Looked},
	} {
		effects, err := m.Step(ev)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, e := range effects {
			if e.Kind == lifecycle.Announce {
				fmt.Printf("%v %d\n", e.Topic, e.Pid)
			}
		}
	}
	// Output:
	// create 100
	// start 100
	// exec-added 0
	// exec-started 101
	// exit 101
	// exit 100
}
