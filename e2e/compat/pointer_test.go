package compat

import "unsafe"

// pointer is where prctl(2) writes a cookie.
func pointer(c *uint64) uintptr { return uintptr(unsafe.Pointer(c)) }
