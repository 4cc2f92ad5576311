// Package bundle knows what containerd and the shim leave for one another in a
// container's bundle directory, and which names may be used there.
//
// Identifiers are types that only their parsers can make, so that a value of
// type [ContainerID] or [ExecID] is safe as a path element, in a log line and
// as an argument of the OCI runtime wherever it turns up. Files are reached
// through the directory's descriptor, never through a symbolic link, and are
// replaced as a whole: a reader sees the old content, the new content or no
// file, even if the shim was killed half-way.
//
// The names and formats of options.json, runtime, init.pid and exit.json are
// those of containerd-shim-runc-v2, so that either shim's delete command can
// clean up after the other.
package bundle
