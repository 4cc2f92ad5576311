package bundle

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/larkshim/lark/internal/errno"
)

// Spec is the part of config.json that a shim needs. The rest is the OCI
// runtime's, which reads the file by itself.
type Spec struct {
	// Annotations as the client gave them: untrusted text.
	Annotations map[string]string
	// Terminal says that init wants one.
	Terminal bool
	// CgroupsPath is linux.cgroupsPath as written: a path, or
	// slice:prefix:name for the systemd driver.
	CgroupsPath string
	// PIDNamespace says where the container's processes live.
	PIDNamespace PIDNamespace
}

// PIDNamespace is what a spec says of the container's pid namespace.
type PIDNamespace struct {
	// New: the runtime makes one. Otherwise Path is joined, or, where that is
	// empty, the container lives in the shim's own.
	New  bool
	Path string
}

// Shared reports whether processes that are not the container's may live in its
// pid namespace, so that init's death does not make the kernel kill the rest.
func (p PIDNamespace) Shared() bool { return !p.New }

// rawSpec mirrors the names in config.json.
type rawSpec struct {
	Annotations once[map[string]string] `json:"annotations"`
	Process     once[*rawProcess]       `json:"process"`
	Linux       once[*rawLinux]         `json:"linux"`
}

// doubled reports whether a member came again.
func (r *rawSpec) doubled() bool {
	process, linux := orZero(r.Process.value), orZero(r.Linux.value)
	return r.Annotations.again || r.Process.again || process.Terminal.again ||
		r.Linux.again || linux.CgroupsPath.again || linux.Namespaces.again
}

func orZero[T any](p *T) T {
	if p == nil {
		p = new(T)
	}
	return *p
}

type rawProcess struct {
	Terminal once[bool] `json:"terminal"`
}

type rawLinux struct {
	CgroupsPath once[string]         `json:"cgroupsPath"`
	Namespaces  once[[]rawNamespace] `json:"namespaces"`
}

type rawNamespace struct {
	Type specs.LinuxNamespaceType `json:"type"`
	Path string                   `json:"path"`
}

// ReadSpec reads config.json. InvalidArgument if it is missing, not JSON, or
// larger than [MaxSpecSize]; encoding/json itself stops at a nesting of 10,000.
// The file is the caller's to have written before it asks for anything, so that
// its absence is a bad request and not a missing container.
func (b *Bundle) ReadSpec() (*Spec, error) {
	var raw rawSpec
	if err := b.readSpec(&raw, raw.doubled); err != nil {
		return nil, err
	}
	process, linux := orZero(raw.Process.value), orZero(raw.Linux.value)
	s := &Spec{
		Annotations: raw.Annotations.value,
		Terminal:    process.Terminal.value,
		CgroupsPath: linux.CgroupsPath.value,
	}
	for _, ns := range linux.Namespaces.value {
		if ns.Type == specs.PIDNamespace {
			s.PIDNamespace = PIDNamespace{New: ns.Path == "", Path: ns.Path}
		}
	}
	return s, nil
}

// ReadAnnotations reads config.json for its annotations alone, which is all
// that the start command needs. Errors as those of ReadSpec.
func (b *Bundle) ReadAnnotations() (map[string]string, error) {
	var raw struct {
		Annotations once[map[string]string] `json:"annotations"`
	}
	err := b.readSpec(&raw, func() bool { return raw.Annotations.again })
	return raw.Annotations.value, err
}

// readSpec decodes config.json. doubled says whether a member came again.
func (b *Bundle) readSpec(into any, doubled func() bool) error {
	path := filepath.Join(b.path, specFile)
	data, err := b.read(specFile, MaxSpecSize)
	if errno.IsMissing(err) {
		return fmt.Errorf("%s is missing: %w", path, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	err = json.Unmarshal(data, into)
	if err == nil && doubled() {
		err = refuseTwins(data)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, errdefs.ErrInvalidArgument, err)
	}
	return nil
}
