package api

import "time"

// NewAny returns m encoded in an Any whose type is m's full name without a host
// before it, as containerd's typeurl writes it.
func NewAny(m Message) (*Any, error) {
	value, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	return &Any{TypeUrl: m.FullName(), Value: value}, nil
}

// NewTimestamp returns the Timestamp of t.
func NewTimestamp(t time.Time) *Timestamp {
	return &Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

// AsTime returns the time in UTC; that of a nil Timestamp is the Unix epoch.
func (m *Timestamp) AsTime() time.Time {
	if m == nil {
		m = new(Timestamp)
	}
	return time.Unix(m.Seconds, int64(m.Nanos)).UTC()
}
