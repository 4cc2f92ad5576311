// Package crash has the tests that need the shim's whole process: it is killed at
// every numbered point of its work (package failpoint), and starved of bytes,
// descriptors and pids. Each time what is promised for that is looked for: nothing is
// left after `delete`, and what ends a container works to the last.
//
// There is nothing in it but tests.
package crash
