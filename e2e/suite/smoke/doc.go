// Package smoke has one short test of everything a container's life has, for the shim under test under every containerd
// that it claims to work with, and prints the table of the README.
package smoke
