package cgroup

import "path"

// beside is what the parent of a version 2 group has counted, and what of that the
// parent's other groups have. memory.events is hierarchical: a kill is counted in
// every group from the victim's up, and a parent's count keeps what a removed
// group has added to it (cgroup-v2.rst, "memory.events").
type beside struct {
	known    bool
	parent   uint64
	siblings map[string]uint64 // by name
}

// lookBeside reads the counts of the parent and of the group's siblings, at the end
// of the watch or at its beginning. They are not known where the parent is the
// root, which has no count, or has too many groups.
//
// A sibling may count a kill between the reads. The order, the parent's count last
// at the beginning and first at the end, makes that one accounted for.
func (w *OOMWatch) lookBeside(end bool) beside {
	parent, name := path.Split(path.Clean(w.dir))
	b := beside{siblings: make(map[string]uint64)}
	var err error
	if end {
		if b.parent, err = w.killsIn(parent); err != nil {
			return beside{}
		}
	}
	entries, err := w.host.sys.readDir(parent)
	if err != nil {
		return beside{}
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == name {
			continue
		}
		if len(b.siblings) == maxSiblings {
			return beside{}
		}
		n, err := w.killsIn(path.Join(parent, e.Name()))
		switch {
		case err == nil:
			b.siblings[e.Name()] = n
		case !gone(err):
			return beside{}
		}
	}
	if !end {
		if b.parent, err = w.killsIn(parent); err != nil {
			return beside{}
		}
	}
	b.known = true
	return b
}

// unaccounted says whether the parent has counted a kill since the beginning that
// neither this group, as far as it was seen, nor a sibling has. If a sibling that
// was there has gone the kill may be its own, and the answer is no.
func (w *OOMWatch) unaccounted() bool {
	then, now := w.beside, w.lookBeside(true)
	if !then.known || !now.known {
		return false
	}
	accounted := w.seen - w.first
	for name, n := range now.siblings {
		accounted += n - min(n, then.siblings[name])
	}
	for name := range then.siblings {
		if _, ok := now.siblings[name]; !ok {
			return false
		}
	}
	return now.parent-min(now.parent, then.parent) > accounted
}
