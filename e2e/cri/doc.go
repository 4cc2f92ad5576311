// Package cri has tests of pods over the shim under test: containerd's CRI plugin, as the kubelet calls it, in a sandbox.
// Pods use the host's network, which in there is the sandbox's loopback, so that no CNI plugin is needed.
package cri
