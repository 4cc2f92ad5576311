// Package stdio gives a container's process its standard streams and copies what
// goes through them: to a FIFO, a file or a logger, or from and to a terminal.
//
// One IO serves one process:
//
//	io, err := stdio.New(ctx, owner, log, spec) // opens everything; nothing runs yet
//	... the runtime is given io ...
//	err = io.Attach(ctx)                        // receives the terminal, begins to copy
//	... the process exits ...
//	err = io.Drain(ctx)                         // what it wrote is delivered, or a bound is hit
//	io.Close()                                  // frees everything, whatever happened before
//
// What always holds:
//
//   - All that can be refused is refused by New, before the runtime runs: a
//     process that was started must not fail because a FIFO is missing (W9).
//   - Nothing here waits without a bound, and a FIFO that nobody reads does not
//     hold up a start (row 39). It does hold up the container, once the FIFO and
//     the pipe before it are full: its output is neither dropped nor kept.
//   - A stream that cannot be written is still read: the container does not
//     stall on a full disk (row 41). What was lost is counted and logged.
//   - Memory does not grow with the amount of output: one goroutine per stream,
//     a buffer only while bytes are in flight, no OS thread waiting.
//   - The container holds pipes and never the FIFO itself: it could set flags on
//     it, read what others write, or fill it in another process's name.
//   - Paths come from a client. They are opened without blocking, and are what
//     fstat says they are. A link in the last element is followed for a log
//     (file:// and a plain path of output) and not for a FIFO.
package stdio
