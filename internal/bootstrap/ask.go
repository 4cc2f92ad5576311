package bootstrap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/protobuf/proto"

	"github.com/larkshim/lark/internal/taskapi"
	"github.com/larkshim/lark/internal/ttrpc"
)

// errGone says that the shim that was to be joined has ended meanwhile.
var errGone = errors.New("the shim is gone")

// ask finds out what the shim at path speaks. It may be older than this binary, or
// another one, and containerd has no other way of knowing (its issues 10888, 11793):
// it takes whatever start says. The shim is asked; if it does not answer, the record
// that the daemon has kept of it; failing that, it is taken for one of our own.
func (s *starter) ask(path, group string) (speaks, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	spoken, err := probe(ctx, path, s.id.String())
	if err == nil || errors.Is(err, errGone) {
		return spoken, err
	}
	if v, ok := recorded(filepath.Dir(s.bundle.Path()), group, "unix://"+path); ok {
		return v, nil
	}
	return own, nil
}

// probe calls a method that every version has and that changes nothing. A shim that
// does not serve the version says Unimplemented; any other answer shows that it does.
func probe(ctx context.Context, path, id string) (speaks, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			return speaks{}, errGone
		}
		return speaks{}, err
	}
	client := ttrpc.NewClient(conn, nil)
	defer client.Close()
	request, err := proto.Marshal(&task.ConnectRequest{ID: id})
	if err != nil {
		return speaks{}, err
	}
	serves := func(service string) (bool, error) {
		_, err := client.Call(ctx, service, "Connect", request)
		if err == nil {
			return true, nil
		} else if errors.Is(err, ttrpc.ErrClosed) {
			return false, errGone
		}
		st, ok := errors.AsType[*ttrpc.Status](err)
		if !ok {
			return false, fmt.Errorf("%s: %w", service, err)
		}
		return st.Code != ttrpc.Unimplemented, nil
	}
	var s speaks
	if s.v3, err = serves(taskapi.V3); err != nil {
		return speaks{}, err
	}
	if s.v2, err = serves(taskapi.V2); err != nil {
		return speaks{}, err
	}
	return s, nil
}

// recorded looks for what the daemon has noted about the shim at address, in the
// bundle of the group's first container: bootstrap.json since 2.0, before that the
// bare address.
func recorded(bundles, group, address string) (speaks, bool) {
	dir := filepath.Join(bundles, group)
	if filepath.Dir(dir) != bundles { // a group that is no container's id
		return speaks{}, false
	}
	if data, err := readSmall(filepath.Join(dir, "bootstrap.json")); err == nil {
		var a answer
		if json.Unmarshal(data, &a) == nil && a.Address == address {
			return speaks{v2: a.Version <= version2, v3: a.Version >= version3}, true
		}
	}
	if data, err := readSmall(filepath.Join(dir, "address")); err == nil && strings.TrimSpace(string(data)) == address {
		return speaks{v2: true}, true
	}
	return speaks{}, false
}

func readSmall(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRecord {
		return nil, fmt.Errorf("%s is not a record", path)
	}
	return os.ReadFile(path)
}
