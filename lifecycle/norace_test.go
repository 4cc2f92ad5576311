//go:build !race

package lifecycle

// searchExecs is how many execs the search plays with.
var searchExecs = []int{2, 3}
