package bundle

// doubled.go judges members that stand in an object of config.json more than once.
//
// One name in two spellings ("annotations" and "Annotations") is one member to
// encoding/json, which folds case, and so to runc: the later value wins, and maps
// and objects are merged. The same decoder makes the same of it here. One spelling
// twice is refused: JSON leaves open which of them wins, parsers differ, and the
// shim must not believe in one pid namespace while the runtime makes another.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// once is a member that should stand in its object a single time.
type once[T any] struct {
	seen, again bool
	value       T
}

// UnmarshalJSON is called again for a member that is there again.
func (o *once[T]) UnmarshalJSON(data []byte) error {
	o.again = o.again || o.seen
	o.seen = true
	return json.Unmarshal(data, &o.value)
}

// members is what this package reads of an object; nil for a value.
type members map[string]members

var specMembers = members{
	"annotations": nil,
	"process":     {"terminal": nil},
	"linux":       {"cgroupsPath": nil, "namespaces": nil},
}

// refuseTwins refuses a member that this package reads and that stands twice, in
// one spelling, in its object.
func refuseTwins(config []byte) error { return specMembers.refuseTwins(config) }

func (m members) refuseTwins(object []byte) error {
	if len(m) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return err // null, which says nothing
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		name := token.(string) // a member's name is nothing else
		inner, ours := m.named(name)
		if !ours {
			continue
		}
		if seen[name] {
			return fmt.Errorf("an object has the member %q twice", name)
		}
		seen[name] = true
		if err := inner.refuseTwins(value); err != nil {
			return err
		}
	}
	return nil
}

// named finds a member by a name in any spelling, as encoding/json does.
func (m members) named(name string) (inner members, ok bool) {
	for known, inner := range m {
		if strings.EqualFold(known, name) {
			return inner, true
		}
	}
	return nil, false
}
