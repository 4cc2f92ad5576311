// Package ctr uses a shim as people do who try one out: by containerd's own
// command line client. Its tests import an image made on the spot from busybox
// and run containers and execs of it, under each containerd, with runc and crun.
package ctr

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// ImageName is the name of the image that WriteImage makes.
const ImageName = "lark.test/busybox:latest"

// descriptor is the OCI image format's pointer to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// WriteImage makes an archive, in OCI layout, of an image of one layer that
// holds the root filesystem in dir, for `ctr image import`.
func WriteImage(archive, dir string) error {
	layer, diffID, err := layerOf(dir)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	put := func(mediaType string, content []byte) (descriptor, error) {
		d := descriptor{MediaType: mediaType, Digest: digest(content), Size: int64(len(content))}
		return d, addFile(tw, "blobs/"+strings.Replace(d.Digest, ":", "/", 1), content)
	}
	layerDesc, err := put("application/vnd.oci.image.layer.v1.tar+gzip", layer)
	if err != nil {
		return err
	}
	config, err := put("application/vnd.oci.image.config.v1+json", toJSON(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sh"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	}))
	if err != nil {
		return err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := put(manifestType, toJSON(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []descriptor{layerDesc},
	}))
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": ImageName, "org.opencontainers.image.ref.name": "latest"}
	for name, content := range map[string][]byte{
		"oci-layout": toJSON(map[string]any{"imageLayoutVersion": "1.0.0"}),
		"index.json": toJSON(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}}),
	} {
		if err := addFile(tw, name, content); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	return os.WriteFile(archive, out.Bytes(), 0o644)
}

// layerOf packs a directory; diffID is the digest before compression.
func layerOf(dir string) (packed []byte, diffID string, err error) {
	var plain, zipped bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		return nil, "", fmt.Errorf("packing %s: %w", dir, err)
	}
	if err := tw.Close(); err != nil {
		return nil, "", err
	}
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write(plain.Bytes()); err != nil {
		return nil, "", err
	}
	if err := zw.Close(); err != nil {
		return nil, "", err
	}
	return zipped.Bytes(), digest(plain.Bytes()), nil
}

func addFile(tw *tar.Writer, name string, content []byte) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := tw.Write(content)
	return err
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// toJSON is for the values above, which all can be marshalled.
func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
