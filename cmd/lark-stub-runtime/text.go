package main

// C strings, files and numbers without a library. An address is a uintptr where it
// points into memory that Go's collector does not own: the arguments, static buffers.

import "unsafe"

// at is the word at an address of the stack that the kernel made.
//
//go:nosplit
func at(p uintptr) *uintptr { return *(**uintptr)(unsafe.Pointer(&p)) }

//go:nosplit
func byteAt(s uintptr, i int) byte {
	p := s + uintptr(i)
	return **(**byte)(unsafe.Pointer(&p))
}

//go:nosplit
func arg(argv uintptr, i int) uintptr { return *at(argv + uintptr(i)*unsafe.Sizeof(argv)) }

// equal compares a C string with a constant.
//
//go:nosplit
func equal(s uintptr, want string) bool {
	for i := 0; i < len(want); i++ {
		if byteAt(s, i) != want[i] {
			return false
		}
	}
	return byteAt(s, len(want)) == 0
}

// put appends a C string to path at n and returns the new length.
//
//go:nosplit
func put(n int, s uintptr) int {
	for i := 0; s != 0 && byteAt(s, i) != 0 && n < pathMax-1; i++ {
		path[n&(pathMax-1)] = byteAt(s, i)
		n++
	}
	path[n&(pathMax-1)] = 0
	return n
}

// putString appends a constant.
//
//go:nosplit
func putString(n int, s string) int {
	for i := 0; i < len(s) && n < pathMax-1; i++ {
		path[n&(pathMax-1)] = s[i]
		n++
	}
	path[n&(pathMax-1)] = 0
	return n
}

// join makes dir and name one path, in the one buffer that there is for paths.
//
//go:nosplit
func join(dir uintptr, name string) uintptr {
	putString(put(0, dir), name)
	return uintptr(unsafe.Pointer(&path))
}

// statePath is the file that remembers a container's pid.
//
//go:nosplit
func statePath(a *args) uintptr {
	put(putString(put(0, a.root), "/"), a.id)
	return uintptr(unsafe.Pointer(&path))
}

// makeDirs makes dir and the directories above it.
//
//go:nosplit
func makeDirs(dir uintptr) {
	n := put(0, dir)
	for i := 1; i <= n; i++ {
		c := path[i&(pathMax-1)]
		if c != '/' && c != 0 {
			continue
		}
		path[i&(pathMax-1)] = 0
		syscall3(sysMkdirat, atCwd, uintptr(unsafe.Pointer(&path)), 0o700)
		path[i&(pathMax-1)] = c
	}
}

// read reads a file into text and returns its length, or a negative error.
//
//go:nosplit
func read(name uintptr) int {
	if name == 0 {
		return -1
	}
	fd := syscall6(sysOpenat, atCwd, name, oRdonly|oCloexec, 0, 0, 0)
	if fd < 0 {
		return fd
	}
	total := 0
	for total < textMax {
		n := syscall3(sysRead, uintptr(fd), uintptr(unsafe.Pointer(&text))+uintptr(total), uintptr(textMax-total))
		if n <= 0 {
			break
		}
		total += n
	}
	syscall3(sysClose, uintptr(fd), 0, 0)
	return total
}

// find looks for a constant in the first n bytes of text.
//
//go:nosplit
func find(n int, want string) bool {
	for i := 0; i+len(want) <= n; i++ {
		j := 0
		for j < len(want) && text[(i+j)&(textMax-1)] == want[j] {
			j++
		}
		if j == len(want) {
			return true
		}
	}
	return false
}

// number writes n in decimal at the end of out and returns where it begins.
//
//go:nosplit
func number(n int) int {
	i := len(out)
	for {
		i--
		out[i&(len(out)-1)] = byte('0' + n%10)
		n /= 10
		if n == 0 {
			return i
		}
	}
}

// save writes a pid to a file; a mark before it tells that the process is a short one.
//
//go:nosplit
func save(name uintptr, pid int, short bool) int {
	fd := syscall6(sysOpenat, atCwd, name, oWronly|oCreat|oTrunc|oCloexec, 0o600, 0, 0)
	if fd < 0 {
		return fd
	}
	i := number(pid)
	if short {
		i--
		out[i&(len(out)-1)] = '!'
	}
	n := syscall3(sysWrite, uintptr(fd), uintptr(unsafe.Pointer(&out))+uintptr(i), uintptr(len(out)-i))
	syscall3(sysClose, uintptr(fd), 0, 0)
	return n
}

// load reads what save wrote about the container.
//
//go:nosplit
func load(a *args) (pid int, short bool) {
	if a.id == 0 {
		return 0, false
	}
	n := read(statePath(a))
	for i := 0; i < n; i++ {
		switch c := text[i&(textMax-1)]; {
		case c == '!':
			short = true
		case c >= '0' && c <= '9':
			pid = pid*10 + int(c-'0')
		}
	}
	return pid, short
}

// pidNamespace opens the pid namespace of a process.
//
//go:nosplit
func pidNamespace(pid int) int {
	n := putString(0, "/proc/")
	for i := number(pid); i < len(out) && n < pathMax-1; i++ {
		path[n&(pathMax-1)] = out[i&(len(out)-1)]
		n++
	}
	putString(n, "/ns/pid")
	return syscall6(sysOpenat, atCwd, uintptr(unsafe.Pointer(&path)), oRdonly|oCloexec, 0, 0, 0)
}

//go:nosplit
func say(s string) {
	syscall3(sysWrite, 1, uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(len(s)))
}

//go:nosplit
func sayC(s uintptr) {
	n := 0
	for s != 0 && byteAt(s, n) != 0 {
		n++
	}
	syscall3(sysWrite, 1, s, uintptr(n))
}

//go:nosplit
func sayNumber(n int) {
	i := number(n)
	syscall3(sysWrite, 1, uintptr(unsafe.Pointer(&out))+uintptr(i), uintptr(len(out)-i))
}

// fail writes a message to standard error and is the exit status of a failure.
//
//go:nosplit
func fail(s string) int {
	syscall3(sysWrite, 2, uintptr(unsafe.Pointer(unsafe.StringData(s))), uintptr(len(s)))
	return 1
}
