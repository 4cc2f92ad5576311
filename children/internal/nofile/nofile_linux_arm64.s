#include "textflag.h"

// func prlimit(into *Limit) (errno uintptr)
TEXT ·prlimit(SB), NOSPLIT|NOFRAME, $0-16
	MOVD $261, R8 // prlimit64
	MOVD $0, R0 // this process
	MOVD $7, R1 // RLIMIT_NOFILE
	MOVD $0, R2
	MOVD into+0(FP), R3
	SVC
	NEG  R0, R0
	MOVD R0, errno+8(FP)
	RET
