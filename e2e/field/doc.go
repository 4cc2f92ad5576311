// Package field plays the faults of FAULTS.md's table F to lark's shim under
// each containerd, with a real runc: what a client sees of each. The tests are
// named by the row.
package field
