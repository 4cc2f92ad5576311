//go:build !lark_plainfork

#include "textflag.h"

// Error numbers are returned as -4095 to -1.
#define MAXERR $0xfffffffffffff001

// func rawVfork(flags uintptr, pidfd unsafe.Pointer) (pid, errno uintptr)
//
// The child returns first, and overwrites the return address on the stack that
// it shares with the parent: the address waits in a register meanwhile.
TEXT ·rawVfork(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ flags+0(FP), DI
	MOVQ $0, SI
	MOVQ pidfd+8(FP), DX
	MOVQ $0, R10
	MOVQ $0, R8
	MOVQ $56, AX // clone
	POPQ R12
	SYSCALL
	PUSHQ R12
	CMPQ AX, MAXERR
	JCC  failed
	MOVQ AX, pid+16(FP)
	MOVQ $0, errno+24(FP)
	RET
failed:
	NEGQ AX
	MOVQ $0, pid+16(FP)
	MOVQ AX, errno+24(FP)
	RET

// func runSteps(first *step, n uintptr, r *report)
//
// It runs in the child only. A system call keeps R12, R13 and BX.
TEXT ·runSteps(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ first+0(FP), R12
	MOVQ n+8(FP), R13
	MOVQ r+16(FP), BX
next:
	MOVQ R13, 8(BX)
	TESTQ R13, R13
	JEQ  exit
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ $0, R8
	MOVQ $0, R9
	SYSCALL
	MOVQ 40(R12), R9
	CMPQ R9, $1 // mayFail
	JEQ  done
	CMPQ R9, $2 // mustEqual
	JEQ  equal
	CMPQ AX, MAXERR
	JCC  error
done:
	ADDQ $56, R12
	DECQ R13
	JMP  next
equal:
	CMPQ AX, 48(R12)
	JEQ  done
	JMP  exit
error:
	NEGQ AX
	MOVQ AX, (BX)
exit:
	MOVQ $231, AX // exit_group
	MOVQ $253, DI
	SYSCALL
	JMP  exit
