//go:build race || mutants

package lifecycle

// searchExecs is how many execs the search plays with, one search after the other.
// The rules have no goroutine, so that the race detector has nothing to find in
// them; it makes the search ten times slower, and so the third exec is left out. So
// it is when the search is repeated for every mutant.
var searchExecs = []int{2}
