// Package compat holds lark's shim against containerd's own, call by call: a list of
// scenarios is played to both, by a client that is no containerd, and whatever can be
// seen of them is compared: answers, classes of errors, the words in errors that
// clients look for, events, the runtime's command lines, what lies in the bundle. What
// is meant to differ stands in one table, with its reason (known_test.go); a line of
// that table that no longer differs fails the test too.
//
// It also keeps COMPATIBILITY.md true: every test that is named there exists.
package compat
