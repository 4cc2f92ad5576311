#include "textflag.h"

// entry: the kernel leaves argc at the stack pointer. The assembler's wrapper of a Go
// function reads the goroutine from thread-local storage, so FS must point at memory:
// arch_prctl(ARCH_SET_FS), syscall 158.
TEXT ·entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ	SP, BX
	MOVQ	$158, AX
	MOVQ	$0x1002, DI
	LEAQ	·tls+128(SB), SI
	SYSCALL
	ANDQ	$~15, SP
	SUBQ	$16, SP
	MOVQ	BX, 0(SP)
	CALL	·start(SB)
	INT	$3

GLOBL ·tls(SB), NOPTR, $256

// func syscall6(number, a, b, c, d, e, f uintptr) int
TEXT ·syscall6(SB),NOSPLIT,$0-64
	MOVQ	number+0(FP), AX
	MOVQ	a+8(FP), DI
	MOVQ	b+16(FP), SI
	MOVQ	c+24(FP), DX
	MOVQ	d+32(FP), R10
	MOVQ	e+40(FP), R8
	MOVQ	f+48(FP), R9
	SYSCALL
	MOVQ	AX, ret+56(FP)
	RET
