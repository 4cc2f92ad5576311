package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		q, want float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{1, 2, 3, 4, 5}, 1, 5},
	} {
		if got := quantile(c.samples, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.samples, c.q, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1234.5: "1234", 123.4: "123", 12.34: "12.3", 1.234: "1.23", 0.1234: "0.123", 0.01234: "0.012", 0.0001234: "0.0001", -5.678: "-5.68",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%v) = %q, want %q", v, got, want)
		}
	}
}

// sample is a result with two shims and the bare runtime.
func sample(t *testing.T) *Result {
	t.Helper()
	cfg := Config{Shims: []Shim{{Name: "first"}, {Name: "lark <&>"}}, Rounds: 3}
	r := newResult(cfg)
	cols := []column{{name: Bare}, {name: "first", shim: &cfg.Shims[0]}, {name: "lark <&>", shim: &cfg.Shims[1]}}
	for round := range 3 {
		for i, col := range cols {
			for _, flight := range []int{1, 32, 128} {
				k := Key{Measure: "exec", Runtime: "runc", Param: flight}
				r.add(k.of("wall"), col, execUnit("wall"), float64((i+1)*10+round))
				if col.shim != nil {
					r.add(k.of("cpu"), col, execUnit("cpu"), 2/float64(i))
				}
			}
		}
		for i, col := range cols[1:] {
			r.add(Key{Measure: "start", Metric: "helper", Runtime: "stub"}, col, unit{"start helper", "ms", Lower}, float64(8-6*i))
		}
	}
	return r.finish(time.Minute)
}

func TestRatios(t *testing.T) {
	r := sample(t)
	f := r.find(Key{Measure: "exec", Metric: "wall", Runtime: "runc", Param: 32}, "lark <&>")
	if f == nil || f.Median != 31 || f.Spread != 0.5 || math.Abs(f.Ratio-31.0/21) > 1e-9 {
		t.Errorf("got %+v", f)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	r := sample(t)
	if err := r.Table(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"exec, runtime runc", "wall time per exec, 128 in flight [ms]", "start, runtime stub", "31.0 ±0.500 ×1.48", Bare} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Index(text, "wall time per exec, 128") > strings.Index(text, "shim CPU per exec, 1") {
		t.Error("the lines of one metric are not together")
	}
	if strings.Contains(text, "targets") {
		t.Error("targets that nobody asked for")
	}
}

// TestPlotsAreXML: what is drawn can be parsed, whatever the shims are called.
func TestPlotsAreXML(t *testing.T) {
	r := sample(t)
	for _, name := range []string{"exec.wall.runc", "exec.cpu.runc", "start.helper.stub"} {
		svg, err := r.Plot(name)
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v in\n%s", name, err, svg)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: a point that cannot be drawn:\n%s", name, svg)
		}
	}
	if _, err := r.Plot("no.such.figure"); !errors.Is(err, ErrNotMeasured) {
		t.Errorf("a figure that does not exist: %v", err)
	}
	for name, want := range map[string]bool{"exec.wall.runc": true, "memory.rest.private.stub": true, "exec": false, "exec.wall": false, "nonsense.wall.runc": false} {
		if err := CheckPlot(name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHTMLStandsAlone: the page refers to nothing outside itself.
func TestHTMLStandsAlone(t *testing.T) {
	r := sample(t)
	if err := r.CheckTargets("lark <&>", ""); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if n := strings.Count(text, "<svg"); n != 3 {
		t.Errorf("%d plots", n)
	}
	for _, bad := range []string{"<link", "<script", "src=", "url(", "lark <&>"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
	if rest := strings.ReplaceAll(text, "http://www.w3.org/2000/svg", ""); strings.Contains(rest, "http") {
		t.Error("the page refers to another")
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t).Markdown(&b); err != nil || !strings.Contains(b.String(), "| wall time per exec, 1 in flight [ms] | 11.0 ±0.500 ×0.52 |") {
		t.Errorf("got %v\n%s", err, b.String())
	}
}

// TestJSON: what was written can be read and shown again.
func TestJSON(t *testing.T) {
	r := sample(t)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := r.Table(&a); err != nil {
		t.Fatal(err)
	}
	if err := again.Table(&b); err != nil || a.String() != b.String() {
		t.Errorf("the table changed: %v", err)
	}
}

func TestTargets(t *testing.T) {
	r := sample(t)
	if err := r.CheckTargets("lark <&>", ""); err != nil {
		t.Fatal(err)
	}
	got := map[string]Verdict{}
	for _, v := range r.Targets {
		got[strings.TrimSuffix(v.What+", "+v.Runtime, ", ")] = v
	}
	if v := got["wall per exec, 32 in flight, runc"]; v.Met || math.Abs(v.Value-31.0/11) > 1e-9 {
		t.Errorf("got %+v", v)
	}
	if v := got["shim CPU per exec, 1 in flight, runc"]; v.Met || v.Value != 0.5 || v.Against != "first" {
		t.Errorf("got %+v", v)
	}
	if v := got["start helper, stub"]; !v.Met || v.Value != 0.25 {
		t.Errorf("got %+v", v)
	}
	if v := got["private memory at rest"]; !v.Missing {
		t.Errorf("got %+v", v)
	}
	if !r.Missed() {
		t.Error("a missed target was overlooked")
	}
	var b bytes.Buffer
	if err := r.Table(&b); err != nil || !strings.Contains(b.String(), "MISSED") || !strings.Contains(b.String(), "not measured") {
		t.Errorf("%v\n%s", err, b.String())
	}
	if err := r.CheckTargets("nobody", ""); err == nil {
		t.Error("a shim that does not exist")
	}
}

// TestGoals: one line for a target over several runtimes, and what it says.
func TestGoals(t *testing.T) {
	r := &Result{Targets: []Verdict{
		{What: "a", Runtime: "stub", Against: "x", Limit: 0.35, Value: 0.3, Met: true},
		{What: "a", Runtime: "runc", Against: "x", Limit: 0.35, Value: 0.4},
		{What: "b", Against: againstNumber, Limit: 10, Value: 11},
		{What: "c", Against: "x", Limit: 3, AtLeast: true, Value: 3, Met: true},
		{What: "d", Against: "x", Limit: 3, Missing: true},
	}}
	const want = `| what | target | measured | |
|---|---|---|---|
| a | ≤ 0.35 × x | stub 0.30, **runc 0.40** | partly met |
| b | ≤ 10 | **11** | missed |
| c | ≥ 3 × x | 3.00 | met |
| d | ≤ 3 × x | – | not measured |
`
	if got := r.targetsMarkdown(); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := (&Result{}).targetsMarkdown(); got != "" {
		t.Errorf("targets that nobody asked for: %q", got)
	}
}

// TestEveryTargetIsMeasured: a target's figure is one that some measure makes. Renaming
// a metric must not silently turn a target into "not measured".
func TestEveryTargetIsMeasured(t *testing.T) {
	names := map[string]bool{}
	for _, m := range measures() {
		names[m.name] = true
	}
	for _, x := range targets() {
		if !names[x.key.Measure] {
			t.Errorf("%s: no measure %q", x.what, x.key.Measure)
		}
		if x.over == againstSelf && x.overKey == (Key{}) {
			t.Errorf("%s: held against nothing", x.what)
		}
	}
}

func TestScale(t *testing.T) {
	s := newScale(100, []float64{1, 2, 10}).round()
	if s.at(0) != 0 || s.at(10) != 100 || s.cuts(10) || fmt.Sprint(s.ticks()) != "[0 5 10]" {
		t.Errorf("got %+v, %v", s, s.ticks())
	}
	// One that is far from the others of its group is cut; a group that is, is not.
	s = newScale(100, []float64{1, 1, 2, 800}, []float64{90, 100, 110}).round()
	if !s.cuts(800) || s.cuts(110) || s.at(800) != 100 {
		t.Errorf("got %+v, %v", s, s.ticks())
	}
	none := newScale(100).round()
	if none.at(0) != 0 || math.IsNaN(none.at(1)) {
		t.Errorf("got %+v", none)
	}
	for _, high := range []float64{0.0003, 0.9, 1, 1.01, 3, 7.77, 12345} {
		s := newScale(100, []float64{high}).round()
		if n := len(s.ticks()); s.at(high) < 50 || s.cuts(high) || n < 3 || n > 7 {
			t.Errorf("%v: %+v, %v", high, s, s.ticks())
		}
	}
}

// TestPlotFits: what is written into a plot lies within it, however many and however long
// the names are.
func TestPlotFits(t *testing.T) {
	cfg := Config{Shims: []Shim{{Name: "lark-v2"}, {Name: "a-shim-with-a-very-long-name"}, {Name: "another-with-a-long-name"}, {Name: "d"}, {Name: "e"}}}
	r := newResult(cfg)
	for _, params := range [][]int{{0}, {1, 4}, {1, 8, 32, 128}} {
		for _, p := range params {
			for i := range cfg.Shims {
				r.add(Key{"m", fmt.Sprint(len(params)), "stub", p}, column{name: cfg.Shims[i].Name}, unit{"a title", "ms", Lower}, math.Pow(12345, float64(i)/2))
			}
		}
	}
	r.finish(time.Minute)
	for _, name := range []string{"m.1.stub", "m.2.stub", "m.4.stub"} {
		svg, err := r.Plot(name)
		if err != nil {
			t.Fatal(err)
		}
		checkFits(t, name, svg)
	}
}

// checkFits looks at every element that has a place.
func checkFits(t *testing.T, name, svg string) {
	t.Helper()
	var width, height float64
	if _, err := fmt.Sscanf(svg[strings.Index(svg, "viewBox"):], `viewBox="0 0 %f %f"`, &width, &height); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`<text class="([^"]*)" text-anchor="(\w+)" x="([^"]+)" y="([^"]+)">([^<]*)`).FindAllStringSubmatch(svg, -1) {
		x, _ := strconv.ParseFloat(m[3], 64)
		y, _ := strconv.ParseFloat(m[4], 64)
		from, to := x, x
		w := textWidth(html.UnescapeString(m[5]))
		if m[1] == "t" {
			w *= capital / letter
		}
		switch m[2] {
		case "start":
			to += w
		case "end":
			from -= w
		case "middle":
			from, to = from-w/2, to+w/2
		}
		if from < 0 || to > width || y < 8 || y > height {
			t.Errorf("%s: %q lies at %.0f to %.0f, %.0f of %.0f x %.0f", name, m[5], from, to, y, width, height)
		}
	}
}

func TestProgressLine(t *testing.T) {
	p := newProgress(nil, 10)
	p.doing("execs")
	for range 5 {
		p.step()
	}
	if got, want := p.line(time.Minute, 80), "[############............]  50%  1m0s left  execs"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := p.line(time.Minute, 20); len(got) != 19 {
		t.Errorf("%q is too wide", got)
	}
	p.end()
}
