#include "textflag.h"

// func prlimit(into *Limit) (errno uintptr)
TEXT ·prlimit(SB), NOSPLIT|NOFRAME, $0-16
	MOVQ $302, AX // prlimit64
	MOVQ $0, DI // this process
	MOVQ $7, SI // RLIMIT_NOFILE
	MOVQ $0, DX
	MOVQ into+0(FP), R10
	SYSCALL
	NEGQ AX
	MOVQ AX, errno+8(FP)
	RET
