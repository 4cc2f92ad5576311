//go:build race

package children

// thin divides the sizes of crowds under the race detector, whose shadow memory makes a fork some ten times as dear.
const thin = 10
