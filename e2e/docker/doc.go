// Package docker has tests of Docker over the shim under test: the distribution's dockerd and the containerd that it
// starts for itself, both in a sandbox, with the shim first in PATH as containerd-shim-runc-v2, the only name that
// dockerd 20.10 knows.
package docker
