// Package ttrpc is a unary server and client of the ttrpc protocol, version 1.0
// (PROTOCOL.md of github.com/containerd/ttrpc). Handlers and callers see the
// raw bytes of a message: the codec is theirs.
//
// A message of any length and content is answered on its own stream and the
// connection goes on. A request that is too long is skipped and answered
// ResourceExhausted; streams, unknown services and unknown methods are answered
// Unimplemented; a stream id that does not increase is answered
// InvalidArgument.
//
// Each connection has one reader. Answers are collected in one buffer, which
// one goroutine at a time writes to the connection, so that the answers that
// come during a write leave with the next. No buffer grows without bound: a
// client that takes no answers, or sends requests faster than they are
// answered, is not read from, and a message takes no more memory than has
// arrived of it.
package ttrpc
