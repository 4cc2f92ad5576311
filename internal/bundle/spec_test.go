package bundle

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestReadSpec(t *testing.T) {
	b := open(t)
	put(t, b, specFile, `{"ociVersion":"1.2.0","process":{"terminal":true,"args":["sh"],"user":{"uid":0}},
		"annotations":{"io.kubernetes.cri.sandbox-id":"pod"},
		"linux":{"cgroupsPath":"/a/b","namespaces":[{"type":"mount"},{"type":"pid","path":"/proc/7/ns/pid"}],"seccomp":{"x":[1,2,{}]}}}`)
	s, err := b.ReadSpec()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Terminal || s.CgroupsPath != "/a/b" || s.Annotations["io.kubernetes.cri.sandbox-id"] != "pod" {
		t.Errorf("ReadSpec = %+v", s)
	}
	if s.PIDNamespace != (PIDNamespace{Path: "/proc/7/ns/pid"}) || !s.PIDNamespace.Shared() {
		t.Errorf("pid namespace %+v", s.PIDNamespace)
	}
	a, err := b.ReadAnnotations()
	if err != nil || a["io.kubernetes.cri.sandbox-id"] != "pod" {
		t.Errorf("ReadAnnotations = %v, %v", a, err)
	}
}

func TestSpecPIDNamespace(t *testing.T) {
	for content, shared := range map[string]bool{
		`{"linux":{"namespaces":[{"type":"pid"}]}}`:             false,
		`{"linux":{"namespaces":[{"type":"pid","path":""}]}}`:   false,
		`{"linux":{"namespaces":[{"type":"pid","path":"/p"}]}}`: true,
		`{"linux":{"namespaces":[{"type":"mount"}]}}`:           true,
		`{"linux":null}`: true,
		`{}`:             true,
	} {
		b := open(t)
		put(t, b, specFile, content)
		if s, err := b.ReadSpec(); err != nil || s.PIDNamespace.Shared() != shared {
			t.Errorf("%s: %+v, %v", content, s, err)
		}
	}
}

func TestRow24ReadSpecRefuses(t *testing.T) { // row 24
	b := open(t)
	if _, err := b.ReadSpec(); !errdefs.IsInvalidArgument(err) {
		t.Errorf("with no file: %v", err)
	}
	for name, content := range map[string]string{
		"empty":               "",
		"not JSON":            "hello",
		"cut short":           `{"annotations":{"a":"b"`,
		"two values":          `{}{}`,
		"wrong type":          `{"annotations":[1]}`,
		"an array":            `[]`,
		"nested too deep":     `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
		"annotations twice":   `{"annotations":{},"annotations":{"a":"b"}}`,
		"linux twice":         `{"linux":{},"linux":{"namespaces":[{"type":"pid"}]}}`,
		"namespaces twice":    `{"linux":{"namespaces":[],"namespaces":[{"type":"pid"}]}}`,
		"process twice":       `{"process":{"terminal":true},"process":{}}`,
		"annotation a number": `{"annotations":{"a":1}}`,
	} {
		put(t, b, specFile, content)
		if s, err := b.ReadSpec(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func FuzzReadSpec(f *testing.F) {
	f.Add([]byte(`{"annotations":{"a":"b"},"linux":{"namespaces":[{"type":"pid"}]}}`))
	f.Add([]byte(`{"annotations":null,"linux":null,"process":null}`))
	f.Add([]byte(`{"linux":{"namespaces":[null]}}`))
	b := open(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		put(t, b, specFile, string(data))
		s, err := b.ReadSpec()
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("an untyped error: %v", err)
		}
		if (s == nil) == (err == nil) {
			t.Errorf("ReadSpec = %v, %v", s, err)
		}
	})
}
