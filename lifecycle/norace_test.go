//go:build !race && !mutants

package lifecycle

// searchExecs is how many execs the search plays with, one search after the other.
var searchExecs = []int{2, 3}
