package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// allowed are the modules whose packages the shim may link. What is linked costs
// every pod of a node; a new one needs a reason.
var allowed = []string{
	"github.com/containerd/console",        // raw terminals, for go-runc
	"github.com/containerd/containerd/api", // the task API and the events
	"github.com/containerd/errdefs",        // classes of errors
	"github.com/containerd/go-runc",        // types of the runtime's answers
	"github.com/containerd/log",            // ttrpc logs through it
	"github.com/containerd/ttrpc",
	"github.com/containerd/typeurl",
	"github.com/larkshim/lark",
	"github.com/opencontainers/go-digest", // types of containerd's API
	"github.com/opencontainers/image-spec",
	"github.com/opencontainers/runtime-spec",
	"github.com/pelletier/go-toml", // runtimeoptions.v1
	"github.com/sirupsen/logrus",   // ttrpc logs through it
	"golang.org/x/sys",
	"google.golang.org/genproto/googleapis/rpc/status",
	"google.golang.org/protobuf",
	// What the status of a ttrpc answer needs of gRPC, and no more.
	"google.golang.org/grpc/codes",
	"google.golang.org/grpc/connectivity",
	"google.golang.org/grpc/grpclog",
	"google.golang.org/grpc/internal",
	"google.golang.org/grpc/serviceconfig",
	"google.golang.org/grpc/status",
}

// refused are packages of the standard library that would cost memory in every shim
// and that nothing of it needs.
var refused = []string{"net/http", "crypto/tls", "html/template", "expvar", "net/http/pprof"}

func TestWhatTheShimLinks(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 100 {
		t.Fatalf("only %d packages: the list is not what it should be", len(packages))
	}
	for _, p := range packages {
		first, _, _ := strings.Cut(p, "/")
		if strings.Contains(first, ".") && !isAllowed(p) {
			t.Errorf("the shim links %s", p)
		}
		for _, r := range refused {
			if p == r {
				t.Errorf("the shim links %s", p)
			}
		}
	}
}

func isAllowed(p string) bool {
	for _, a := range allowed {
		if p == a || strings.HasPrefix(p, a+"/") {
			return true
		}
	}
	return false
}

// main stays a page that can be read at one sight.
func TestMainIsShort(t *testing.T) {
	b, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), "\n"); n > 40 {
		t.Errorf("main.go has %d lines", n)
	}
}
