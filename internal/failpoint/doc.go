// Package failpoint numbers the moments at which a crash of the shim is tried.
//
// The code calls Point between two steps of which the second is not done if the
// process dies there. In every binary that people use Point is empty and costs
// nothing. In one that is built with the tag "failpoint" it counts, and the process
// kills itself with SIGKILL at the point whose number the environment gives; a test
// raises the number until the whole scenario goes through.
//
// A panic is tried at every Point too, and at every Step, where a crash shows
// nothing that it does not show at a Point nearby. Tests of panics see both by
// Watch, which exists only with the tag.
package failpoint

// Env names the variable that says where to die: the command of the shim (start,
// delete, or serve for the long-running process), a colon, the number of the point,
// counted from 1; and after another colon a file to which the point's name is
// written first.
const Env = "LARK_FAILPOINT"
