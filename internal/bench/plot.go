package bench

// Plots as SVG, each standing alone: lines where a figure was measured at several
// parameters, bars where at one.

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The size of a plot, in its own units.
const (
	plotWidth   = 460
	plotHeight  = 250
	marginLeft  = 56
	marginRight = 14
	marginTop   = 34
	marginBase  = 40
	barHeight   = 22
	// logFrom: values farther apart than this are drawn on a logarithmic scale.
	logFrom = 30
)

// colours of the columns, in their order: those of Okabe and Ito, which people who see
// red and green alike can tell apart.
func colour(i int) string {
	c := []string{"#7f7f7f", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}
	return c[i%len(c)]
}

const plotStyle = `<style>text{font:11px system-ui,sans-serif;fill:#333}.t{font-weight:600;font-size:12px}.g{stroke:#999;stroke-opacity:.3}` +
	`@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>`

// plot draws one figure in all columns that have it.
func (r *Result) plot(rows []row) string {
	if len(rows) > 1 {
		return r.lines(rows)
	}
	return r.bars(rows[0])
}

// scale maps values to a length, from zero or logarithmically.
type scale struct {
	low, high, length float64
	log               bool
}

func newScale(values []float64, length float64) scale {
	s := scale{length: length, low: math.Inf(1)}
	for _, v := range values {
		s.high = max(s.high, v)
		if v > 0 {
			s.low = min(s.low, v)
		}
	}
	if s.high <= 0 {
		s.low, s.high = 0, 1
		return s
	}
	if s.log = s.high/s.low > logFrom; s.log {
		s.low = math.Pow(10, math.Floor(math.Log10(s.low)))
		s.high = math.Pow(10, math.Ceil(math.Log10(s.high)))
		return s
	}
	s.low, s.high = 0, s.high*1.05
	return s
}

func (s scale) at(v float64) float64 {
	if s.log {
		return s.length * math.Log(max(v, s.low)/s.low) / math.Log(s.high/s.low)
	}
	return s.length * max(v, 0) / s.high
}

// ticks are round values over the scale.
func (s scale) ticks() []float64 {
	var ts []float64
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			ts = append(ts, v)
		}
		return ts
	}
	step := math.Pow(10, math.Floor(math.Log10(s.high)))
	for s.high/step < 4 {
		step /= 2
	}
	for v := 0.0; v <= s.high; v += step {
		ts = append(ts, v)
	}
	return ts
}

// svgHead opens a plot.
func svgHead(b *strings.Builder, height int, title, unit string) {
	if unit != "" {
		title += ", " + unit
	}
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">%s`, plotWidth, height, plotWidth, height, plotStyle)
	fmt.Fprintf(b, `<title>%s</title><text class="t" x="8" y="16">%s</text>`, html.EscapeString(title), html.EscapeString(title))
}

// bars draws one bar per column, with its spread as a line.
func (r *Result) bars(row row) string {
	var values []float64
	for _, f := range row.Cells {
		if f != nil {
			values = append(values, f.Median+f.Spread)
		}
	}
	const nameWidth, valueWidth = 130, 80
	s := newScale(values, plotWidth-nameWidth-valueWidth)
	var b strings.Builder
	svgHead(&b, marginTop+barHeight*len(values)+8, row.Title+", "+row.Key.Runtime, row.Unit)
	y := marginTop
	for i, f := range row.Cells {
		if f == nil {
			continue
		}
		w := s.at(f.Median)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, nameWidth-8, y+14, html.EscapeString(f.Column))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, nameWidth, y+3, w, barHeight-8, colour(i))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, nameWidth+w+6, y+14, html.EscapeString(cell(f)))
		y += barHeight
	}
	b.WriteString("</svg>")
	return b.String()
}

// lines draws one line per column over the parameter, which grows by factors.
func (r *Result) lines(rows []row) string {
	var values []float64
	for _, row := range rows {
		for _, f := range row.Cells {
			if f != nil {
				values = append(values, f.Median)
			}
		}
	}
	const w, h = plotWidth - marginLeft - marginRight, plotHeight - marginTop - marginBase
	s := newScale(values, h)
	first, last := math.Log(float64(rows[0].Key.Param)), math.Log(float64(rows[len(rows)-1].Key.Param))
	x := func(param int) float64 { return marginLeft + w*(math.Log(float64(param))-first)/(last-first) }
	y := func(v float64) float64 { return marginTop + h - s.at(v) }
	var b strings.Builder
	svgHead(&b, plotHeight, rows[0].Title+", "+rows[0].Key.Runtime, rows[0].Unit)
	for _, t := range s.ticks() {
		fmt.Fprintf(&b, `<line class="g" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			marginLeft, plotWidth-marginRight, y(t), y(t), marginLeft-6, y(t)+4, short(t))
	}
	for _, row := range rows {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(row.Key.Param), marginTop+h+16, row.Key.Param)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotWidth-marginRight, marginTop+h+32, rows[0].Key.paramName())
	r.series(&b, rows, x, y)
	b.WriteString("</svg>")
	return b.String()
}

// series draws the lines and their names.
func (r *Result) series(b *strings.Builder, rows []row, x func(int) float64, y func(float64) float64) {
	at := float64(marginLeft)
	for i, c := range r.Columns {
		var points, dots strings.Builder
		for _, row := range rows {
			if f := row.Cells[i]; f != nil {
				fmt.Fprintf(&points, "%.1f,%.1f ", x(row.Key.Param), y(f.Median))
				fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %s</title></circle>`,
					x(row.Key.Param), y(f.Median), colour(i), html.EscapeString(c.Name), html.EscapeString(cell(f)))
			}
		}
		if points.Len() == 0 {
			continue
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>%s`, strings.TrimSpace(points.String()), colour(i), dots.String())
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="9" height="9" fill="%s"/><text x="%.1f" y="%d">%s</text>`,
			at, plotHeight-14, colour(i), at+13, plotHeight-6, html.EscapeString(c.Name))
		const letter = 6.5
		at += 26 + letter*float64(len(c.Name))
	}
}
