//go:build race

package shim

// searchClients is how many clients the search plays with. The rules have no goroutine,
// so that the race detector has nothing to find in them, and makes the search slow.
const searchClients = 1
