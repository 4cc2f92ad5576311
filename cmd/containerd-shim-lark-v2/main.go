// Command containerd-shim-lark-v2 is the runtime shim that containerd starts.
package main

import (
	"context"
	"os"

	"github.com/larkshim/lark/children"
	"github.com/larkshim/lark/internal/bootstrap"
	"github.com/larkshim/lark/internal/cgroup"
	"github.com/larkshim/lark/internal/task"
	"github.com/larkshim/lark/internal/version"
)

func main() {
	os.Exit(bootstrap.Main(bootstrap.App{Version: version.Version, Revision: version.Commit(), NewService: newService}))
}

func newService(_ context.Context, s bootstrap.Serving) (bootstrap.Service, error) {
	owner, err := children.NewOwner(s.Log)
	if err != nil {
		return bootstrap.Service{}, err
	}
	cgroups, err := cgroup.NewHost()
	if err != nil {
		return bootstrap.Service{}, err
	}
	svc := task.New(task.Config{
		Namespace: s.Namespace, Owner: owner, Cgroups: cgroups,
		Outbox: s.Outbox, Log: s.Log, Shutdown: s.Shutdown, Alone: s.Alone,
	})
	return bootstrap.Service{Task: svc, Connections: svc, Close: owner.Close}, nil
}
