package bootstrap

import "github.com/larkshim/lark/internal/ttrpc"

// The bounds of the wire, which this package's server keeps.
const (
	maxFrame   = ttrpc.MaxMessage
	maxAnswer  = ttrpc.MaxMessage
	maxMessage = ttrpc.MaxText
)
