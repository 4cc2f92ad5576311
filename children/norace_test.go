//go:build !race

package children

// thin divides the sizes of crowds.
const thin = 1
