//go:build !lark_plainfork

#include "textflag.h"

// func rawVfork(flags uintptr, pidfd unsafe.Pointer) (pid, errno uintptr)
//
// The function has no frame, so that the return address stays in a register.
TEXT ·rawVfork(SB), NOSPLIT|NOFRAME, $0-32
	MOVD flags+0(FP), R0
	MOVD $0, R1
	MOVD pidfd+8(FP), R2
	MOVD $0, R3
	MOVD $0, R4
	MOVD $220, R8 // clone
	SVC
	CMN  $4095, R0 // error numbers are returned as -4095 to -1
	BCS  failed
	MOVD R0, pid+16(FP)
	MOVD ZR, errno+24(FP)
	RET
failed:
	NEG  R0, R0
	MOVD ZR, pid+16(FP)
	MOVD R0, errno+24(FP)
	RET

// func runSteps(first *step, n uintptr, r *report)
//
// It runs in the child only. A system call keeps every register but R0.
TEXT ·runSteps(SB), NOSPLIT|NOFRAME, $0-24
	MOVD first+0(FP), R19
	MOVD n+8(FP), R20
	MOVD r+16(FP), R21
next:
	MOVD R20, 8(R21)
	CBZ  R20, exit
	MOVD 0(R19), R8
	MOVD 8(R19), R0
	MOVD 16(R19), R1
	MOVD 24(R19), R2
	MOVD 32(R19), R3
	MOVD $0, R4
	MOVD $0, R5
	SVC
	MOVD 40(R19), R22
	CMP  $1, R22 // mayFail
	BEQ  done
	CMP  $2, R22 // mustEqual
	BEQ  equal
	CMN  $4095, R0
	BCS  error
done:
	ADD  $56, R19
	SUB  $1, R20
	B    next
equal:
	MOVD 48(R19), R22
	CMP  R22, R0
	BEQ  done
	B    exit
error:
	NEG  R0, R0
	MOVD R0, (R21)
exit:
	MOVD $94, R8 // exit_group
	MOVD $253, R0
	SVC
	B    exit
