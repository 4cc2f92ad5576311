package bundle

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// F30: members whose names differ in case alone are taken as encoding/json takes
// them, which runc and upstream's shim use too; twins in one spelling are refused.
func TestF30DoubledMembers(t *testing.T) {
	for name, text := range map[string]string{
		"maps are merged":    `{"annotations":{"a":"1","b":"1"},"Annotations":{"b":"2","c":"3"}}`,
		"and null":           `{"annotations":{"a":"1"},"ANNOTATIONS":null}`,
		"the last is true":   `{"process":{"terminal":false,"Terminal":true}}`,
		"the last is false":  `{"process":{"Terminal":true,"terminal":false}}`,
		"objects are merged": `{"process":{"terminal":true},"Process":{"cwd":"/"}}`,
		"both say so":        `{"process":{"terminal":true},"Process":{"terminal":false}}`,
		"an object, null":    `{"process":{"terminal":true},"Process":null,"linux":{"cgroupsPath":"/a"},"LINUX":null}`,
		"paths":              `{"linux":{"cgroupsPath":"/a","cgroupspath":"/b"}}`,
		"namespaces":         `{"linux":{"namespaces":[{"type":"mount"},{"type":"pid","path":"/x"}],"Namespaces":[{"type":"pid"}]}}`,
		"joins, then none":   `{"linux":{"namespaces":[{"type":"pid","path":"/x"}]},"Linux":{"namespaces":[]}}`,
		"other letters":      `{"linux":{"namespaces":[]},"linuX":{"name\u017Fpaces":[{"type":"pid"}]}}`,
		"not ours":           `{"hooks":{},"hooks":{},"process":{"cwd":"/","cwd":"/"}}`,
	} {
		var want specs.Spec
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		b := open(t)
		put(t, b, specFile, text)
		got, err := b.ReadSpec()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		annotations, err := b.ReadAnnotations()
		if err != nil || !maps.Equal(annotations, want.Annotations) || !maps.Equal(got.Annotations, want.Annotations) {
			t.Errorf("%s: annotations %v and %v, %v; want %v", name, got.Annotations, annotations, err, want.Annotations)
		}
		if want := want.Process != nil && want.Process.Terminal; got.Terminal != want {
			t.Errorf("%s: terminal %v", name, got.Terminal)
		}
		if want.Linux == nil {
			continue
		}
		var pid PIDNamespace
		for _, ns := range want.Linux.Namespaces {
			if ns.Type == specs.PIDNamespace {
				pid = PIDNamespace{New: ns.Path == "", Path: ns.Path}
			}
		}
		if got.CgroupsPath != want.Linux.CgroupsPath || got.PIDNamespace != pid {
			t.Errorf("%s: %+v, want %q and %+v", name, got, want.Linux.CgroupsPath, pid)
		}
	}
	for _, text := range []string{
		`{"annotations":{},"annotations":{}}`, `{"Annotations":{},"Annotations":{}}`,
		`{"annotations":{},"Annotations":{},"annotations":{}}`, `{"process":{"terminal":true,"terminal":true}}`,
		`{"Process":{"Terminal":true,"Terminal":true}}`, `{"linux":{"namespaces":[],"namespaces":[]}}`,
		`{"process":null,"linux":{"cgroupsPath":"/a","cgroupsPath":"/a"}}`, `{"process":null,"process":null}`,
	} {
		b := open(t)
		put(t, b, specFile, text)
		if _, err := b.ReadSpec(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
