package main

// The way in when the program was linked as usual.

import (
	"os"
	"unsafe"
)

func main() {
	// The arguments again as C strings, kept alive until the end.
	argv := make([]*byte, 0, len(os.Args)+1)
	for _, a := range os.Args {
		argv = append(argv, unsafe.StringData(a+"\x00"))
	}
	argv = append(argv, nil)
	os.Exit(run(len(os.Args), uintptr(unsafe.Pointer(unsafe.SliceData(argv)))))
}
