package shimclient

// What a shim prints on `start`, in all the forms that shims have used.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// Form is how an Answer was written.
type Form string

// The forms of an answer, oldest first.
const (
	FormAddress Form = "address" // containerd 1.6 and older: the bare address
	FormJSON    Form = "json"    // 1.7 to 2.2, and whoever wants every daemon to understand
	FormProto   Form = "proto"   // 2.3 and newer: a BootstrapResult
)

// The versions of the task API that a shim can answer with.
const (
	taskV2 = 2
	taskV3 = 3
)

// Answer is what a `start` helper says about the shim that serves. Only ParseAnswer
// makes one, so its socket is always usable and its version one that we speak.
type Answer struct {
	Form    Form
	Version int    // of the task API: 2 or 3
	Address string // as given, e.g. unix:///run/containerd/s/ab12
	socket  string // the path in it
}

// Socket is the path of the unix socket that the shim listens on.
func (a Answer) Socket() string { return a.socket }

// Service is the full name of the task service that the shim serves.
func (a Answer) Service() string { return fmt.Sprintf("containerd.task.v%d.Task", a.Version) }

// ParseAnswer parses the standard output of `start`. The forms cannot be mistaken for
// one another: a JSON object opens with a brace and an address with its scheme, neither
// of which begins a valid BootstrapResult. An answer that asks for something that we do
// not speak (gRPC, vsock, another version) is errdefs.ErrNotImplemented; one that is
// nothing of the three is errdefs.ErrInvalidArgument.
func ParseAnswer(out []byte) (Answer, error) {
	if len(out) > maxAnswer {
		return Answer{}, fmt.Errorf("shim answered with %d bytes: %w", len(out), errdefs.ErrInvalidArgument)
	}
	text := bytes.TrimSpace(out)
	switch {
	case len(text) == 0:
		return Answer{}, fmt.Errorf("shim answered with nothing: %w", errdefs.ErrInvalidArgument)
	case text[0] == '{':
		return parseJSON(text)
	case bytes.HasPrefix(text, []byte("unix://")) || text[0] == '/':
		return finish(Answer{Form: FormAddress, Version: taskV2, Address: string(text)}, "ttrpc")
	}
	var res bootapi.BootstrapResult
	if err := proto.Unmarshal(out, &res); err != nil {
		return Answer{}, fmt.Errorf("shim answered %.200q: %w", out, errdefs.ErrInvalidArgument)
	}
	return finish(Answer{Form: FormProto, Version: int(res.Version), Address: res.Address}, res.Protocol)
}

func parseJSON(text []byte) (Answer, error) {
	var v struct {
		Version  int    `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return Answer{}, fmt.Errorf("shim answered %.200q: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return finish(Answer{Form: FormJSON, Version: v.Version, Address: v.Address}, v.Protocol)
}

// finish checks what all forms have in common and takes the socket out of the address.
func finish(a Answer, protocol string) (Answer, error) {
	if protocol != "ttrpc" {
		return Answer{}, fmt.Errorf("shim speaks %q, not ttrpc: %w", protocol, errdefs.ErrNotImplemented)
	}
	if a.Version != taskV2 && a.Version != taskV3 {
		return Answer{}, fmt.Errorf("shim speaks version %d of the task API, not 2 or 3: %w", a.Version, errdefs.ErrNotImplemented)
	}
	a.socket = strings.TrimPrefix(a.Address, "unix://")
	if !strings.HasPrefix(a.socket, "/") {
		return Answer{}, fmt.Errorf("shim listens on %q, not on a unix socket: %w", a.Address, errdefs.ErrNotImplemented)
	}
	if len(a.socket) > maxSocketPath || strings.ContainsAny(a.socket, "\x00\n") {
		return Answer{}, fmt.Errorf("shim's socket %.200q cannot be a socket's path: %w", a.socket, errdefs.ErrInvalidArgument)
	}
	return a, nil
}
