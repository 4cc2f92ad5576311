package registry

import (
	"bytes"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// platforms are what every image claims to exist for: the tests pull some of them by name and run none but the machine's
// own. The files are the same in each but for a label, because the tests tell by its layers whether they have a platform.
var platforms = []v1.Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64", Variant: "v8"},
	{OS: "linux", Architecture: "s390x"},
	{OS: "linux", Architecture: "ppc64le"},
}

// Image is one image under all the names by which it can be pulled.
type Image struct {
	Names []string // host/repository:tag
	Cmd   []string
	// Upper are files on top of the busybox, in a layer of their own; nil: none.
	Upper   *tree
	busybox *Busybox
}

// ContainerdImages are the images of containerd 2.4's integration tests, under their exact names, as far as a busybox can
// stand in for what they hold.
func ContainerdImages(b *Busybox) []Image {
	// Both are made of the files that the tests look at: see integration/images/volume-* in containerd.
	var copyUp, ownership tree
	copyUp.dir("test_dir", 0o755, 0, 0)
	copyUp.file("test_dir/test_file", []byte("test_content\n"), 0o644)
	ownership.dir("test_dir", 0o755, 65534, 65534)
	ownership.file("usr/bin/passwd", []byte("#!/bin/sh\nexit 0\n"), 0o4755)
	shell := []string{"sh"}
	return []Image{
		{Names: []string{"ghcr.io/containerd/busybox:1.36"}, Cmd: shell, busybox: b},
		{Names: []string{"registry.k8s.io/e2e-test-images/busybox:1.29-2"}, Cmd: shell, busybox: b},
		{Names: []string{"ghcr.io/containerd/volume-copy-up:2.2"}, Cmd: shell, Upper: &copyUp, busybox: b},
		{Names: []string{"ghcr.io/containerd/volume-ownership:2.1"}, Cmd: shell, Upper: &ownership, busybox: b},
		{Names: []string{"registry.k8s.io/pause:3.10.2", "registry.k8s.io/pause:3.6"}, Cmd: []string{"sleep", "inf"}, busybox: b},
	}
}

// index makes the image for every platform.
func (i Image) index() (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		image, err := i.forPlatform(platform)
		if err != nil {
			return nil, fmt.Errorf("image %v for %v: %w", i.Names, platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	return index, nil
}

// layers are the tars of the image, the lowest first.
func (i Image) layers(platform v1.Platform) ([][]byte, error) {
	root, err := i.busybox.RootFS(i.Names[0] + " " + platform.String())
	if err != nil || i.Upper == nil {
		return [][]byte{root}, err
	}
	upper, err := i.Upper.bytes()
	return [][]byte{root, upper}, err
}

func (i Image) forPlatform(platform v1.Platform) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	layers, err := i.layers(platform)
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(layer)), nil
		}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, made); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: modified}
	config.Config.Cmd = i.Cmd
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return mutate.ConfigFile(image, config)
}
