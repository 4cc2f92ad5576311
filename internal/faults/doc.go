// Package faults has no code: its test keeps FAULTS.md true, the table of what lark
// does about bad input and faults, and of the tests that show it.
package faults
