//go:build race

package lifecycle

// searchExecs is how many execs the search plays with. The rules have no
// goroutine, so the race detector finds nothing in them and makes the search ten
// times slower; the build without it has both execs.
var searchExecs = []int{1}
