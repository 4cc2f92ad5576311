// Package cgroup2 has the messages of the statistics of cgroups version 2, as
// package api has the others.
package cgroup2
