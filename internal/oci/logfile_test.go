package oci

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Row 28: a runtime repeats what an image has written, an escape sequence or a line
// that looks like one of the log's; neither comes out of an error of ours.
func TestRow28RuntimesWordsArePrintable(t *testing.T) {
	const evil = `{"level":"error","msg":"exec \u001b[2J\nlevel=ERROR\u007f failed"}` + "\n"
	for _, stderr := range []string{"", "exec \x1b[2J\nlevel=ERROR\x7f failed\n", "other\x1b\n"} {
		got := reason(logErrors([]byte(evil)), []byte(stderr))
		if got != "exec  [2J level=ERROR  failed" {
			t.Errorf("with stderr %q: %q", stderr, got)
		}
	}
	if got := reason(nil, []byte("a\nb\x1bc\n")); got != "b c" {
		t.Errorf("stderr alone: %q", got)
	}
}

// Whatever a runtime logs and writes to stderr, its reason is one bounded line.
func FuzzRuntimeLog(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"a"}`+"\n"), []byte("a\n"))
	f.Add([]byte(`{"level":"fatal","msg":"a"}`+"\n{\n"), []byte(""))
	f.Add([]byte(`ror","msg":"cut"}`+"\n"+`{"level":"error","msg":"\u0000\ud800"}`), []byte("\x1b[2J"))
	f.Add([]byte(`{"level":"error","msg":"a`+strings.Repeat("é", messageMax)+`"}`), []byte(nil))
	f.Add([]byte(nil), []byte("a"+strings.Repeat("é", messageMax)))
	f.Fuzz(func(t *testing.T, log, stderr []byte) {
		got := reason(logErrors(log), stderr)
		if len(got) > messageMax+len(" ...") || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid UTF-8 %v", len(got), utf8.ValidString(got))
		}
		if strings.IndexFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0 {
			t.Errorf("a control character in %q", got)
		}
	})
}
