package main

const (
	sysMkdirat   = 34
	sysUnlinkat  = 35
	sysOpenat    = 56
	sysClose     = 57
	sysRead      = 63
	sysWrite     = 64
	sysPpoll     = 73
	sysExitGroup = 94
	sysKill      = 129
	sysClone     = 220
	sysSetns     = 268
)
