package storm

import (
	"cmp"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
)

// The environment by which a storm can be varied:
//
//	LARK_E2E_SHIM              path of the shim; "own" for the one beside each containerd; lark's otherwise
//	LARK_E2E_CONTAINERDS       paths of containerds, separated by commas; the system's and 2.4 otherwise
//	LARK_E2E_RUNC              the OCI runtime; the shim's default otherwise
//	LARK_E2E_STORM_CONTAINERS  how many; 100 otherwise
//	LARK_E2E_STORM_SECONDS     or how long
//	LARK_E2E_STORM_KINDS       regular expression of scenarios
//	LARK_E2E_STORM_BOUND       how long one call may take, as 20s
//	LARK_E2E_STORM_SEED        a seed that was printed
const shortStorm = 100

func env(t *testing.T, name string) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func config(t *testing.T, containerd string) Config {
	t.Helper()
	cfg := Config{
		Daemon:     daemon.Config{Binary: containerd},
		Shim:       daemon.ShimFor(containerd),
		Runc:       os.Getenv("LARK_E2E_RUNC"),
		Containers: env(t, "LARK_E2E_STORM_CONTAINERS"),
		Duration:   time.Duration(env(t, "LARK_E2E_STORM_SECONDS")) * time.Second,
		Seed:       uint64(env(t, "LARK_E2E_STORM_SEED")),
		Kinds:      regexp.MustCompile(os.Getenv("LARK_E2E_STORM_KINDS")),
	}
	// crun refuses a machine with v1 controllers beside a cgroup2 mount.
	cfg.Daemon.WithoutCgroup2 = strings.HasSuffix(cfg.Runc, "crun")
	if cfg.Containers == 0 && cfg.Duration == 0 {
		cfg.Containers = shortStorm
	}
	if bound := os.Getenv("LARK_E2E_STORM_BOUND"); bound != "" {
		d, err := time.ParseDuration(bound)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Bound = d
	}
	return cfg
}

func TestStorm(t *testing.T) {
	for _, containerd := range daemon.Containerds() {
		version := cmp.Or(daemon.VersionOf(containerd), containerd)
		t.Run(version, func(t *testing.T) {
			result, err := Run(t.Context(), config(t, containerd))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result)
			if result.Failed() {
				t.Error(result.Details())
			}
		})
	}
}

// TestStormCatches runs containerd's own shim through what is known to go wrong
// with it in every version, a created task that is deleted before it was
// started (W3), and wants it caught: a storm that finds nothing proves nothing.
func TestStormCatches(t *testing.T) {
	for _, containerd := range daemon.Containerds() {
		t.Run(cmp.Or(daemon.VersionOf(containerd), containerd), func(t *testing.T) {
			result, err := Run(t.Context(), Config{
				Daemon: daemon.Config{Binary: containerd}, Shim: daemon.OwnShim(containerd),
				Containers: 8, Kinds: regexp.MustCompile("^created-deleted$"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Violations) == 0 {
				t.Errorf("the known faults of containerd's own shim were not seen: %v", result)
			}
			t.Logf("caught, as it should be: %v", result)
		})
	}
}
