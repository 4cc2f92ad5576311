package bootstrap

import (
	"os/exec"
	"strings"
	"testing"
)

// What the shim links is most of what it weighs at rest. It may have of gRPC what the
// ttrpc library needs (codes, status and what those import), and neither an HTTP stack
// nor tracing.
func TestNothingHeavyIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../cmd/containerd-shim-lark-v2").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 100 {
		t.Fatalf("only %d packages are listed", len(deps))
	}
	for _, dep := range deps {
		for _, heavy := range []string{"net/http", "crypto/tls", "go.opentelemetry.io/", "google.golang.org/grpc", "github.com/containerd/containerd/v2/", "github.com/containerd/containerd/api/runtime/task/v3", "testing"} {
			if strings.HasPrefix(dep, heavy) && !allowed(dep) {
				t.Errorf("%s is linked", dep)
			}
		}
	}
}

func allowed(dep string) bool {
	switch strings.TrimPrefix(dep, "google.golang.org/grpc/") {
	case "codes", "status", "internal", "internal/status", "connectivity", "serviceconfig", "grpclog", "grpclog/internal":
		return true
	}
	return false
}
