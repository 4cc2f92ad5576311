//go:build !failpoint

package failpoint

// Point does nothing. The compiler inlines that.
func Point(name string) {}

// Step does nothing. The compiler inlines that.
func Step(name string) {}
