package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	// certificateLife outlives any run of the tests.
	certificateLife = 24 * time.Hour
	// headerTimeout is far more than a client on the same machine needs to send its request line.
	headerTimeout = 10 * time.Second
)

// Address is where the sandbox's registry listens: HTTPS's own port, because the names of the images have none.
const Address = "127.0.0.1:443"

// Hosts are the registries that ContainerdImages are named after.
var Hosts = []string{"ghcr.io", "registry.k8s.io"}

// Server is a registry over TLS. It answers for every host its images are named after, so the caller points those hosts
// at its address (in a sandbox: sandbox.Config.Hosts) and has clients trust what WriteCA writes (SSL_CERT_FILE).
type Server struct {
	listener net.Listener
	server   *http.Server
	done     chan error
	ca       []byte
}

// Serve begins to serve images at address, e.g. "127.0.0.1:443". Close ends it.
func Serve(ctx context.Context, address string, images []Image) (*Server, error) {
	hosts, err := hostsOf(images)
	if err != nil {
		return nil, err
	}
	certificate, ca, err := selfSigned(hosts)
	if err != nil {
		return nil, fmt.Errorf("registry certificate: %w", err)
	}
	listener, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	s := &Server{
		listener: listener,
		server:   &http.Server{Handler: ggcr.New(ggcr.Logger(quiet)), ErrorLog: quiet, ReadHeaderTimeout: headerTimeout},
		done:     make(chan error, 1),
		ca:       ca,
	}
	go func() { s.done <- s.server.Serve(listener) }()
	if err := s.push(ctx, images); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// push uploads over the very socket that clients will use, whatever the names resolve to here.
func (s *Server) push(ctx context.Context, images []Image) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.ca)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.listener.Addr().String())
		},
	}
	defer transport.CloseIdleConnections()
	for _, image := range images {
		index, err := image.index()
		if err != nil {
			return err
		}
		for _, full := range image.Names {
			tag, err := name.NewTag(full)
			if err != nil {
				return err
			}
			if err := remote.WriteIndex(tag, index, remote.WithTransport(transport), remote.WithContext(ctx)); err != nil {
				return fmt.Errorf("push %s: %w", full, err)
			}
		}
	}
	return nil
}

// WriteCA writes the certificate that clients must trust to file.
func (s *Server) WriteCA(file string) error { return os.WriteFile(file, s.ca, 0o644) }

// Close ends the server and its connections.
func (s *Server) Close() error {
	err := s.server.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// hostsOf are the registries that the images are named after, sorted, each once.
func hostsOf(images []Image) ([]string, error) {
	var hosts []string
	for _, image := range images {
		for _, full := range image.Names {
			tag, err := name.NewTag(full)
			if err != nil {
				return nil, err
			}
			hosts = append(hosts, tag.RegistryStr())
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// selfSigned makes a certificate for hosts that is its own authority, and its PEM.
func selfSigned(hosts []string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "registry of the lark tests"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              hosts,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
