package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func busybox(t *testing.T) *Busybox {
	t.Helper()
	b, err := OpenBusybox(BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRootFS: what the tests of containerd ask for is there.
func TestRootFS(t *testing.T) {
	data, err := busybox(t).RootFS("label")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[header.Name] = header
	}
	for _, wanted := range []string{"bin/busybox", "bin/sh", "bin/bash", "bin/nc", "etc/passwd", "etc/group", "run/", "tmp/", "proc/"} {
		if found[wanted] == nil {
			t.Errorf("there is no %s", wanted)
		}
	}
	if sh := found["bin/sh"]; sh.Linkname != "busybox" {
		t.Errorf("bin/sh leads to %q", sh.Linkname)
	}
	if again, err := busybox(t).RootFS("label"); err != nil || !bytes.Equal(again, data) {
		t.Errorf("made twice it differs, %v", err)
	}
	if other, err := busybox(t).RootFS("other"); err != nil || bytes.Equal(other, data) {
		t.Errorf("labels make no difference, %v", err)
	}
}

func TestOpenBusyboxRefusesADynamicProgram(t *testing.T) {
	if _, err := OpenBusybox("/bin/ls"); err == nil {
		t.Error("ls of the system was taken")
	}
}

// TestServe pulls an image under its own name, for one platform of several, over TLS.
func TestServe(t *testing.T) {
	images := ContainerdImages(busybox(t))
	server, err := Serve(t.Context(), "127.0.0.1:0", images)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.ca)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.listener.Addr().String())
		},
	}
	defer transport.CloseIdleConnections()
	for _, image := range images {
		for _, full := range image.Names {
			reference, err := name.ParseReference(full)
			if err != nil {
				t.Fatal(err)
			}
			if host := reference.Context().RegistryStr(); !slices.Contains(Hosts, host) {
				t.Errorf("%s is of %s, which is not among Hosts", full, host)
			}
			pulled, err := remote.Image(reference, remote.WithTransport(transport), remote.WithPlatform(v1.Platform{OS: "linux", Architecture: "s390x"}))
			if err != nil {
				t.Fatal(err)
			}
			config, err := pulled.ConfigFile()
			if err != nil || config.Architecture != "s390x" {
				t.Errorf("%s: architecture %q, %v", full, config.Architecture, err)
			}
			if layers, err := pulled.Layers(); err != nil || len(layers) == 0 {
				t.Errorf("%s: %d layers, %v", full, len(layers), err)
			}
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}
