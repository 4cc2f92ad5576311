package oci

// logfile.go finds the reason of a failure in the runtime's JSON log.
//
// Calls of one container may run side by side, and lines of the log do not say
// who wrote them. An exec therefore has a log of its own, in memory (a file in the
// bundle would be made by the runtime and unlinked by lark: a sixth of the CPU of
// an exec, where the bundle is on a disk). The other calls share log.json: it
// exists since create, so that a kill or a delete needs no free byte and no free
// inode; of those lark has the stderr as well, and takes from the log the line
// that stderr confirms.

import (
	"bytes"
	"encoding/json"
	"strings"
)

// logErrors returns the messages of a JSON log's error lines, in order. fatal
// lines (a wrapper that gave up) count only if there is no error line. A line
// that is not JSON is skipped: the first one may be cut in half, and wrappers
// write what they like.
func logErrors(data []byte) []string {
	var errs, fatals []string
	for line := range bytes.Lines(data) {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		msg := strings.TrimSpace(entry.Msg)
		if msg == "" {
			continue
		}
		switch entry.Level {
		case "error":
			errs = append(errs, msg)
		case "fatal", "panic":
			fatals = append(fatals, msg)
		}
	}
	if len(errs) == 0 {
		return fatals
	}
	return errs
}

// reason picks the message of a failed call: the last error of its log that its
// own stderr repeats, else the log's last error, else the last line of stderr
// that says something.
func reason(log []string, stderr []byte) string {
	for i := len(log) - 1; i >= 0; i-- {
		if bytes.Contains(stderr, []byte(log[i])) {
			return clip(printable(log[i]))
		}
	}
	if len(log) > 0 {
		return clip(printable(log[len(log)-1]))
	}
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	return clip(printable(strings.TrimSpace(lines[len(lines)-1])))
}

// printable takes control characters out of a runtime's words (row 28): they end
// up in logs and on terminals.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}
