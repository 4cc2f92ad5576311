package main

const (
	sysRead      = 0
	sysWrite     = 1
	sysClose     = 3
	sysClone     = 56
	sysKill      = 62
	sysExitGroup = 231
	sysOpenat    = 257
	sysMkdirat   = 258
	sysUnlinkat  = 263
	sysPpoll     = 271
	sysSetns     = 308
)
