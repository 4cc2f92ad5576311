package bench

// A page with every figure: plots, tables and what was measured where, in one file that
// needs nothing else.

import (
	"errors"
	"fmt"
	"html"
	"html/template"
	"io"
	"slices"
	"strings"
)

const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>lark bench</title>
<style>
:root{color-scheme:light dark;--line:#ccc;--soft:#666}
@media(prefers-color-scheme:dark){:root{--line:#444;--soft:#aaa}}
body{font:15px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
p,li{color:var(--soft)}
.plots{display:flex;flex-wrap:wrap;gap:8px}
svg{max-width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,.targets th,.targets td{text-align:left}
.missed{color:#c33;font-weight:600}.met{color:#393}
</style></head><body>
<h1>lark bench</h1>
<p>{{.Machine.CPU}}, {{.Machine.CPUs}} CPUs ({{.Machine.Arch}}), {{.Machine.Memory}}, Linux {{.Machine.Kernel}}{{with .Machine.Cgroups}}, {{.}}{{end}}{{with .Machine.State}}, {{.}}{{end}}.
{{.Started.Format "2006-01-02 15:04"}} UTC, {{.Rounds}} rounds{{if .Quick}} of a quick run{{end}}, {{printf "%.0f" .Seconds}} s.
Medians ± half the distance between the quartiles; behind × the ratio to {{baseline .}}.</p>
<ul>{{range .Columns}}<li>{{.Name}}: {{.About}}</li>{{end}}</ul>
{{with goals .}}<h2>Targets</h2><div class="wide"><table class="targets"><tr><th>what</th><th>target</th><th>measured</th><th></th></tr>
{{range .}}<tr><td>{{.What}}</td><td>{{.Limit}}</td><td>{{range $i, $v := .Verdicts}}{{if $i}}, {{end}}<span class="{{.Word}}">{{.Measured}}</span>{{end}}</td><td>{{.Word}}</td></tr>
{{end}}</table></div>{{end}}
{{range sections .}}<h2>{{.Title}}</h2><div class="plots">{{range .Plots}}{{.}}{{end}}</div>
<div class="wide"><table><tr><th></th>{{range $.Columns}}<th>{{.Name}}</th>{{end}}</tr>
{{range .Rows}}<tr><td>{{.Label}}</td>{{range .Cells}}<td>{{.}}</td>{{end}}</tr>
{{end}}</table></div>{{end}}
{{with .Took}}<p>It took: {{range $i, $t := .}}{{if $i}}, {{end}}{{.Measure}} with {{.Runtime}} {{printf "%.0f" .Seconds}} s{{end}}.</p>{{end}}
</body></html>
`

// section is one measure with one runtime.
type section struct {
	Title string
	Plots []template.HTML
	Rows  []sectionRow
}

type sectionRow struct {
	Label string
	Cells []string
}

// HTML writes the page.
func (r *Result) HTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{"sections": sections, "goals": (*Result).goals, "baseline": (*Result).baseline}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// sections arranges the figures by measure and runtime.
func sections(r *Result) []section {
	about := map[string]string{}
	for _, m := range measures() {
		about[m.name] = m.about
	}
	var all []section
	index := map[Key]int{}
	for _, rows := range r.metrics() {
		k := rows[0].Key
		at, ok := index[Key{Measure: k.Measure, Runtime: k.Runtime}]
		if !ok {
			at = len(all)
			index[Key{Measure: k.Measure, Runtime: k.Runtime}] = at
			all = append(all, section{Title: fmt.Sprintf("%s, with %s: %s", k.Measure, k.Runtime, about[k.Measure])})
		}
		s := &all[at]
		// Names are escaped where the plot is drawn.
		s.Plots = append(s.Plots, template.HTML(r.plot(rows)))
		for _, row := range rows {
			cells := make([]string, len(row.Cells))
			for i, f := range row.Cells {
				cells[i] = cell(f)
			}
			s.Rows = append(s.Rows, sectionRow{Label: row.label(), Cells: cells})
		}
	}
	return all
}

// metrics groups the rows that differ in nothing but their parameter.
func (r *Result) metrics() [][]row {
	var all [][]row
	for _, x := range r.rows() {
		if n := len(all); n > 0 {
			last := all[n-1][0].Key
			if last.of("") == (Key{Measure: x.Key.Measure, Runtime: x.Key.Runtime, Param: last.Param}) && last.Metric == x.Key.Metric {
				all[n-1] = append(all[n-1], x)
				continue
			}
		}
		all = append(all, []row{x})
	}
	return all
}

// Plot is the plot of MEASURE.METRIC.RUNTIME, as SVG that stands alone.
func (r *Result) Plot(name string) (string, error) {
	for _, rows := range r.metrics() {
		k := rows[0].Key
		if strings.Join([]string{k.Measure, k.Metric, k.Runtime}, ".") == name {
			return r.plot(rows), nil
		}
	}
	return "", fmt.Errorf("plot %s: %w", name, ErrNotMeasured)
}

// ErrNotMeasured: a plot of what is not among the figures.
var ErrNotMeasured = errors.New("it was not measured")

// CheckPlot says of a name, before anything is measured, whether it can be one of a plot.
func CheckPlot(name string) error {
	const parts = 3
	measure, _, _ := strings.Cut(name, ".")
	if strings.Count(name, ".") < parts-1 || !slices.ContainsFunc(Measures(), func(m [2]string) bool { return m[0] == measure }) {
		return fmt.Errorf("plot %s: give MEASURE.METRIC.RUNTIME, as exec.wall.runc", name)
	}
	return nil
}

// Markdown writes the table of targets, as PERFORMANCE.md has it, and all figures, folded up.
func (r *Result) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; medians of %d rounds.\n\n%s", r.machine(), r.Rounds, r.targetsMarkdown())
	fmt.Fprintf(&b, "\nAll figures: median ± half the distance between the quartiles, × the ratio to %s.\n", r.baseline())
	for _, s := range sections(r) {
		fmt.Fprintf(&b, "\n<details><summary>%s</summary>\n\n| |", html.EscapeString(s.Title))
		for _, c := range r.Columns {
			b.WriteString(" " + c.Name + " |")
		}
		b.WriteString("\n|---|" + strings.Repeat("---:|", len(r.Columns)) + "\n")
		for _, row := range s.Rows {
			b.WriteString("| " + row.Label + " | " + strings.Join(row.Cells, " | ") + " |\n")
		}
		b.WriteString("\n</details>\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
