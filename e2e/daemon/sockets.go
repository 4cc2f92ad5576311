package daemon

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// socketOf is where a shim of the daemon listens unless the daemon says
// otherwise: the name is a hash of the daemon's address, the namespace and the
// shim's id (or group), so it tells whose it is only to who knows all three.
func (d *Daemon) socketOf(namespace, id string) string {
	sum := sha256.Sum256([]byte(filepath.Join(d.Address(), namespace, id)))
	return fmt.Sprintf("%s/%x", socketDir, sum)
}

// sockets lists the shim sockets in the common directory that belong to
// containers which a client of this daemon, or Made, has told of.
func (d *Daemon) sockets() []string {
	d.made.Lock()
	defer d.made.Unlock()
	var found []string
	for _, path := range d.made.sockets {
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// Made tells of a container that was made by other means than a Client, as by
// ctr: where its shim would listen is then among what Leftovers looks at.
func (d *Daemon) Made(namespace, id string) {
	d.made.Lock()
	defer d.made.Unlock()
	d.made.sockets = append(d.made.sockets, d.socketOf(namespace, id))
}
