package bootstrap

import (
	"encoding/json"
	"fmt"
)

// The versions of the task API that a shim may be said to speak.
const (
	version2 = 2
	version3 = 3
)

// answer is what start prints.
type answer struct {
	Version  int    `json:"version"`
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
}

// encode writes the answer as the daemon can read it. To those of 2.3 and later too
// it is JSON: they take their own protobuf, JSON and a plain address, and 2.0 to 2.2
// and 1.7 take JSON, so that a daemon that is replaced under a pod can still read
// what it had kept.
func (a answer) encode(d dialect) ([]byte, error) {
	if d == plain {
		return []byte(a.Address), nil
	}
	data, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return data, nil
}

// speaks is which versions of the task API a shim serves.
type speaks struct{ v2, v3 bool }

// own is what this binary serves.
var own = speaks{v2: true, v3: true}

// version is the one to tell the daemon: the best that both sides have, and where
// there is none what the shim has, so that the daemon can say so.
func (s speaks) version(d dialect) int {
	switch {
	case s.v3 && (d == bootstrap || !s.v2):
		return version3
	default:
		return version2
	}
}
