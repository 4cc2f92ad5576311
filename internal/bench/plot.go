package bench

// Plots as SVG, each standing alone: groups of bars where a figure was measured at several
// parameters, one bar per column where at one. A plot has a background of its own, so that
// its colours hold wherever it is shown.

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// The sizes of a plot, in its own units.
const (
	plotWidth = 470 // at least: two of them stand side by side on the page
	letter    = 6.3 // of the text, at most; no SVG knows how wide its text will be
	capital   = 7.4 // of the title
	edge      = 12  // around everything
	titleBase = 24  // the title's baseline
	noteBase  = 42  // that of the line below it
	keyBase   = 62  // that of the first line of the legend
	keyLine   = 18

	// One bar in a row.
	rowHeight = 22
	rowBar    = 14
	rowLength = 150 // at least

	// Groups of bars.
	axisWidth  = 46
	areaHeight = 180
	slotWidth  = 36 // of a bar with its value
	slotBar    = 24
	groupGap   = 22
	// cutFrom: a bar so many times longer than most of its group is cut, or no other could
	// be told from the next.
	cutFrom = 6
)

// colours of the columns, in their order: those of Okabe and Ito, which people who see
// red and green alike can tell apart.
func colour(i int) string {
	c := []string{"#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}
	return c[i%len(c)]
}

const plotStyle = `<style>.bg{fill:#fff;stroke:#d0d7de}text{font:11px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#24292f}` +
	`.t{font-weight:600;font-size:13px}.s{fill:#59636e}.r{fill:#59636e;font-size:9.5px}.g{stroke:#59636e;stroke-opacity:.25}.a{stroke:#59636e}` +
	`.e{stroke:#24292f;stroke-width:1.2}.c{fill:#fff}` +
	`@media(prefers-color-scheme:dark){.bg{fill:#0d1117;stroke:#30363d}text{fill:#e6edf3}.s,.r{fill:#9198a1}.e{stroke:#e6edf3}.c{fill:#0d1117}}</style>`

// plot draws one figure in all columns that have it.
func (r *Result) plot(rows []row) string {
	if len(rows) > 1 {
		return r.groups(rows)
	}
	return r.bars(rows)
}

// scale maps values to a length, from zero. What is longer than the length is cut.
type scale struct{ high, length float64 }

// newScale fits the values of all groups but those that are much larger than the median
// of their own.
func newScale(length float64, groups ...[]float64) scale {
	s := scale{length: length}
	for _, values := range groups {
		most := cutFrom * quantile(values, 0.5)
		for _, v := range values {
			if v <= most {
				s.high = max(s.high, v)
			}
		}
	}
	if s.high <= 0 {
		s.high = 1
	}
	return s
}

func (s scale) at(v float64) float64 { return s.length * min(max(v, 0), s.high) / s.high }

func (s scale) cuts(v float64) bool { return v > s.high }

// round makes the scale end with a tick.
func (s scale) round() scale {
	step := s.step()
	s.high = step * math.Ceil(s.high/step-1e-9)
	return s
}

// step is 1, 2 or 5 times a power of ten, for three to six ticks.
func (s scale) step() float64 {
	const least = 2
	step := math.Pow(10, math.Floor(math.Log10(s.high)))
	for _, by := range []float64{0.5, 1, 2, 5, 10} {
		if s.high/(step/by) >= least {
			return step / by
		}
	}
	return step
}

// ticks are round values over the scale.
func (s scale) ticks() []float64 {
	var ts []float64
	step := s.step()
	for i := 0; float64(i)*step <= s.high*1.001; i++ {
		ts = append(ts, float64(i)*step)
	}
	return ts
}

// text writes a text element; class may be empty, anchor start, middle or end.
func text(b *strings.Builder, class, anchor string, x, y float64, s string) {
	fmt.Fprintf(b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`, class, anchor, x, y, html.EscapeString(s))
}

func textWidth(s string) float64 { return letter * float64(utf8.RuneCountInString(s)) }

// title says what a plot shows.
func (row row) title() string {
	title := row.Title + ", with " + row.Key.Runtime
	if row.Unit != "" {
		title += " [" + row.Unit + "]"
	}
	return title
}

// headWidth is what the title and the note need.
func headWidth(title, note string) int {
	return 2*edge + int(max(textWidth(note), capital*float64(utf8.RuneCountInString(title))))
}

// head opens a plot: its background, its title, and what its numbers are.
func head(b *strings.Builder, width, height int, title, note string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">%s`, width, height, width, height, plotStyle)
	fmt.Fprintf(b, `<title>%s</title><rect class="bg" x="0.5" y="0.5" width="%d" height="%d" rx="6"/>`, html.EscapeString(title), width-1, height-1)
	text(b, "t", "start", edge, titleBase, title)
	text(b, "s", "start", edge, noteBase, note)
}

// note says how to read a plot.
func (r *Result) note(rows []row, s scale) string {
	text := "less is better"
	var cut, missing bool
	for _, row := range rows {
		for _, i := range r.drawn(rows) {
			f := row.Cells[i]
			missing = missing || f == nil
			cut = cut || f != nil && s.cuts(f.Median)
			if f != nil && f.Better == Higher {
				text = "more is better"
			}
		}
	}
	text += "; × is the ratio to " + r.baseline()
	if cut {
		text += "; a broken bar goes on"
	}
	if missing {
		text += "; –: too slow to measure"
	}
	return text
}

// bars draws one bar per column, with its spread as a line.
func (r *Result) bars(rows []row) string {
	var values []float64
	var names, labels float64
	for _, f := range rows[0].Cells {
		if f != nil {
			values = append(values, f.Median+f.Spread)
			names, labels = max(names, textWidth(f.Column)), max(labels, textWidth(cell(f)))
		}
	}
	left := edge + names + 8
	s := newScale(rowLength, values)
	note := r.note(rows, s)
	width := max(plotWidth, int(left+rowLength+labels)+2*edge, headWidth(rows[0].title(), note))
	s.length = float64(width) - left - labels - 2*edge
	var b strings.Builder
	const top = noteBase + 10
	head(&b, width, top+rowHeight*len(values)+edge/2, rows[0].title(), note)
	y := float64(top)
	for i, f := range rows[0].Cells {
		if f == nil {
			continue
		}
		text(&b, "", "end", left-8, y+14, f.Column)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`, left, y+3, s.at(f.Median), rowBar, colour(i))
		end := s.at(f.Median + f.Spread)
		if s.cuts(f.Median) {
			fmt.Fprintf(&b, `<path class="c" d="M%.1f %.1fl5 0l-4 %dl-5 0z"/>`, left+end-12, y+3, rowBar)
		} else {
			fmt.Fprintf(&b, `<line class="e" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, left+s.at(f.Median-f.Spread), left+end, y+10, y+10)
		}
		text(&b, "", "start", left+end+6, y+14, cell(f))
		y += rowHeight
	}
	b.WriteString("</svg>")
	return b.String()
}

// drawn are the columns that have a figure in some row.
func (r *Result) drawn(rows []row) []int {
	var all []int
	for i := range r.Columns {
		if slices.ContainsFunc(rows, func(row row) bool { return row.Cells[i] != nil }) {
			all = append(all, i)
		}
	}
	return all
}

// groups draws a group of bars for each parameter, in each a bar per column.
func (r *Result) groups(rows []row) string {
	values := make([][]float64, len(rows))
	for i, row := range rows {
		for _, f := range row.Cells {
			if f != nil {
				values[i] = append(values[i], f.Median)
			}
		}
	}
	cols := r.drawn(rows)
	each := len(cols)*slotWidth + groupGap
	s := newScale(areaHeight, values...).round()
	note := r.note(rows, s)
	width := max(plotWidth, axisWidth+edge+each*len(rows)+edge, headWidth(rows[0].title(), note))
	keys, keyLines := r.legend(cols, width)
	top := float64(keyBase + keyLine*keyLines + 22) // room for the labels of the longest bar
	var b strings.Builder
	head(&b, width, int(top)+areaHeight+22+edge, rows[0].title(), note)
	b.WriteString(keys)
	base := top + areaHeight
	for _, t := range s.ticks() {
		fmt.Fprintf(&b, `<line class="g" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, axisWidth, width-edge, base-s.at(t), base-s.at(t))
		text(&b, "s", "end", axisWidth-6, base-s.at(t)+4, tickText(t))
	}
	spare := (width - axisWidth - edge - each*len(rows)) / len(rows)
	for i, row := range rows {
		x := float64(axisWidth+edge/2) + float64(i*(each+spare)) + float64(groupGap+spare)/2
		text(&b, "", "middle", x+float64(each-groupGap)/2, base+18, fmt.Sprintf("%d %s", row.Key.Param, row.Key.paramName()))
		for n, c := range cols {
			r.groupBar(&b, row.Cells[c], c, x+float64(n*slotWidth), base, s)
		}
	}
	fmt.Fprintf(&b, `<line class="a" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/></svg>`, axisWidth, width-edge, base, base)
	return b.String()
}

// tickText is a value on an axis, without zeros that say nothing.
func tickText(v float64) string { return fmt.Sprintf("%.6g", v) }

// groupBar draws one bar, its spread, its value and its ratio. Where nothing was measured
// it says so.
func (r *Result) groupBar(b *strings.Builder, f *Figure, col int, x, base float64, s scale) {
	middle := x + slotWidth/2
	if f == nil {
		text(b, "r", "middle", middle, base-4, "–")
		return
	}
	h := s.at(f.Median)
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%d" height="%.1f" fill="%s"><title>%s: %s</title></rect>`,
		middle-slotBar/2, base-h, slotBar, h, colour(col), html.EscapeString(f.Column), html.EscapeString(cell(f)))
	top := h
	if s.cuts(f.Median) {
		fmt.Fprintf(b, `<path class="c" d="M%.1f %.1fl%d -8l0 5l-%d 8z"/>`, middle-slotBar/2-1, base-h+22, slotBar+2, slotBar+2)
	} else if f.Spread > 0 {
		top = s.at(f.Median + f.Spread)
		fmt.Fprintf(b, `<line class="e" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, middle, middle, base-s.at(f.Median-f.Spread), base-top)
	}
	if f.Ratio == 0 {
		text(b, "", "middle", middle, base-top-4, short(f.Median))
		return
	}
	text(b, "", "middle", middle, base-top-14, short(f.Median))
	text(b, "r", "middle", middle, base-top-4, ratio(f.Ratio))
}

// legend names the columns; it takes as many lines as it needs.
func (r *Result) legend(cols []int, width int) (svg string, lines int) {
	const box, gap = 10, 18
	var b strings.Builder
	x, y := float64(edge), float64(keyBase)
	lines = 1
	for _, i := range cols {
		name := r.Columns[i].Name
		need := box + 5 + textWidth(name)
		if x+need > float64(width-edge) && x > edge {
			x, y, lines = edge, y+keyLine, lines+1
		}
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%d" height="%d" fill="%s"/>`, x, y-box+1, box, box, colour(i))
		text(&b, "", "start", x+box+5, y, name)
		x += need + gap
	}
	return b.String(), lines
}
