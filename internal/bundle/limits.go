package bundle

// Every limit of this package, and why it is what it is.
const (
	// maxIDLength is containerd's own limit for identifiers.
	maxIDLength = 76

	// MaxSpecSize bounds config.json, in bytes. Real ones are 10 to 100 KiB;
	// containerd's bootstrap reader stops at the same size.
	MaxSpecSize = 10 << 20

	// maxRecordSize bounds the small files of the shim's own: options.json,
	// runtime, exit.json. They are a few hundred bytes.
	maxRecordSize = 64 << 10

	// maxPIDFileSize bounds a pid file: PID_MAX_LIMIT is 4194304, seven
	// digits, and some runtimes add a newline.
	maxPIDFileSize = 32

	// MaxOptionsSize bounds a TOML body of runtime options, whether it came
	// inside the request or in a file that the request names.
	MaxOptionsSize = 1 << 20

	// fileMode is that of everything the shim writes: options may name paths
	// and users, and nobody but root has business in a bundle
	// (CVE-2021-41103).
	fileMode = 0o600
)
