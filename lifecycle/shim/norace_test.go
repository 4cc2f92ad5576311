//go:build !race

package shim

// searchClients is how many clients the search plays with.
const searchClients = clients
