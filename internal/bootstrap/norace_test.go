//go:build !race

package bootstrap

const underRace = 1
