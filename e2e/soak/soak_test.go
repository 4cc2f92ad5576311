package soak

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/larkshim/lark/e2e/daemon"
)

// The environment by which a soak can be varied:
//
//	LARK_E2E_SOAK_SECONDS     how long; a short one otherwise
//	LARK_E2E_SOAK_CONTAINERS  how many containers at once at most; 200 otherwise
//	LARK_E2E_SOAK_SEED        a seed that was printed
//	LARK_E2E_SHIM             path of the shim; "own" for the one beside each containerd; lark's otherwise
//	LARK_E2E_CONTAINERDS      paths of containerds, separated by commas; 2.4 otherwise
//	LARK_E2E_RUNC             the OCI runtime; the shim's default otherwise

const (
	// shortSoak and shortMost are enough for some waves, every fault and a few
	// samples, and little enough for every `make test`.
	shortSoak = 10 * time.Second
	shortMost = 5
	// leakRest is short, for many samples of what is not memory.
	leakRest = 100 * time.Millisecond
	// shortWaves are run however slow the machine is, leakWaves of a leak.
	shortWaves = 2
	leakWaves  = 7
)

func TestMain(m *testing.M) {
	if err := Wrap(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func number(t *testing.T, name string) int {
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
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Daemon: daemon.Config{Binary: containerd}, Shim: daemon.ShimFor(containerd), Self: self,
		Runc:     os.Getenv("LARK_E2E_RUNC"),
		Duration: shortSoak, Waves: shortWaves, Most: shortMost, Chance: 1,
		Out: os.Stdout,
	}
	cfg.Daemon.WithoutCgroup2 = strings.HasSuffix(cfg.Runc, "crun")
	return cfg
}

func containerds() []string {
	if os.Getenv("LARK_E2E_CONTAINERDS") != "" {
		return daemon.Containerds()
	}
	return []string{filepath.Join(daemon.Built(daemon.Containerd24), "containerd")}
}

// TestSoak is the soak: for as long as it is asked to, or a short one.
func TestSoak(t *testing.T) {
	for _, containerd := range containerds() {
		t.Run(cmp.Or(daemon.VersionOf(containerd), containerd), func(t *testing.T) {
			cfg := config(t, containerd)
			if n := number(t, "LARK_E2E_SOAK_SECONDS"); n > 0 {
				cfg.Duration, cfg.Most, cfg.Chance = time.Duration(n)*time.Second, 0, 0
			}
			if n := number(t, "LARK_E2E_SOAK_CONTAINERS"); n > 0 {
				cfg.Most = n
			}
			cfg.Seed = uint64(number(t, "LARK_E2E_SOAK_SEED"))
			result, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println(result.Table())
			fmt.Println("soak-json:", result.JSON())
			if result.Failed() {
				t.Errorf("%d violations, %d problems, growth: %v", len(result.Violations), len(result.Problems), result.grows())
			}
			if result.Execs == 0 || result.PodExecs == 0 || result.Faults["containerd killed"] == 0 {
				t.Errorf("this was no soak: %s", result.JSON())
			}
		})
	}
}

// TestSoakCatchesALeak leaves an exec running in the pod after every wave, and
// wants the growth of its shim seen and named: a soak that finds nothing proves
// nothing.
func TestSoakCatchesALeak(t *testing.T) {
	cfg := config(t, filepath.Join(daemon.Built(daemon.Containerd24), "containerd"))
	cfg.Forgetful, cfg.Chance, cfg.Most, cfg.Rest, cfg.Waves = true, 1e-9, 1, leakRest, leakWaves
	result, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"goroutines", "descriptors"} {
		i := slices.IndexFunc(result.Trends, func(t Trend) bool { return t.Name == name })
		if !result.Trends[i].Grows {
			t.Errorf("an exec that is left after every wave: %s are said to be flat: %+v", name, result.Trends[i])
		}
	}
	if !result.Failed() || len(result.Growth) == 0 {
		t.Errorf("the growth is not reported: %v", result.Growth)
	}
	if len(result.Violations)+len(result.Problems) > 0 {
		t.Errorf("apart from the leak: %q, %q", result.Violations, result.Problems)
	}
	t.Logf("caught, as it should be: %q", result.Growth)
}
