// Package cgroup1 has the messages of the statistics of cgroups version 1, as
// package api has the others.
package cgroup1
