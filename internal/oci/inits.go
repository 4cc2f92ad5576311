package oci

// inits.go reads of a runtime's state who a container's init is. Each runtime
// has a file of its own for that; all are JSON, and name the pid.

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// Init is a container's init as its runtime has written it down. The process
// may have died since.
type Init struct {
	Container string
	Pid       int
	// Start is the start time, field 22 of proc_pid_stat(5); 0 if the runtime
	// does not keep it (youki).
	Start uint64
}

// stateFiles are the files that hold a container's state: of runc and youki,
// and of crun.
var stateFiles = []string{"state.json", "status"}

// Reader returns a Runtime that can only look into a runtime's directory: it
// has no binary, and its calls fail.
func Reader(root string, log *slog.Logger) *Runtime {
	return &Runtime{root: root, log: log, files: host{}}
}

// Sharers returns the inits of other containers that are among pids, the
// processes of a container's cgroup. A cgroup that has any is not the
// container's alone.
func (r *Runtime) Sharers(id string, pids []int) []Init {
	if len(pids) == 0 {
		return nil
	}
	return slices.DeleteFunc(r.otherInits(id), func(i Init) bool { return !slices.Contains(pids, i.Pid) })
}

// Init returns the init of a container.
func (r *Runtime) Init(id string) (Init, bool) {
	if r.root == "" {
		return Init{}, false
	}
	return r.initIn(filepath.Join(r.root, id))
}

// otherInits returns the inits of all containers that the runtime keeps beside
// one: in its directory, and in those beside that, which are of the other
// namespaces of a containerd.
func (r *Runtime) otherInits(id string) []Init {
	if r.root == "" {
		return nil
	}
	dirs, _ := filepath.Glob(filepath.Join(escape(filepath.Dir(r.root)), "*", "*"))
	var inits []Init
	for _, dir := range dirs {
		if dir == filepath.Join(r.root, id) {
			continue
		}
		if init, ok := r.initIn(dir); ok {
			inits = append(inits, init)
		}
	}
	return inits
}

func (r *Runtime) initIn(dir string) (Init, bool) {
	for _, name := range stateFiles {
		data, err := r.files.readFile(filepath.Join(dir, name), stateMax)
		if err != nil {
			if !os.IsNotExist(err) {
				r.log.Warn("the state of a container cannot be read", "file", filepath.Join(dir, name), "error", err)
			}
			continue
		}
		var state struct {
			RuncPid   int    `json:"init_process_pid"`
			RuncStart uint64 `json:"init_process_start"`
			Pid       int    `json:"pid"`
			Start     uint64 `json:"process-start-time"` // crun
		}
		if json.Unmarshal(data, &state) != nil {
			continue
		}
		init := Init{Container: filepath.Base(dir), Pid: state.RuncPid, Start: state.RuncStart}
		if init.Pid == 0 {
			init.Pid, init.Start = state.Pid, state.Start
		}
		if init.Pid > 1 {
			return init, true
		}
	}
	return Init{}, false
}

// escape takes the meaning out of a pattern's characters (filepath.Match).
func escape(path string) string {
	var b []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}
