//go:build race

package bootstrap

// underRace divides the loads: the race detector makes everything some ten times slower.
const underRace = 5
