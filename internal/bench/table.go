package bench

// The table at the end: a line per figure, a column per shim.

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Table writes the figures as text: medians, half the distance between the quartiles, and
// the ratio to the first shim.
func (r *Result) Table(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d rounds; median ±half the quartiles' distance, ×the ratio to %s\n", r.machine(), r.Rounds, r.baseline())
	section := ""
	rows := r.rows()
	ws := r.widths(rows)
	for _, row := range rows {
		if s := row.Key.Measure + ", runtime " + row.Key.Runtime; s != section {
			section = s
			b.WriteString("\n" + r.tableHead(section, ws))
		}
		b.WriteString(r.line(row, ws))
	}
	b.WriteString(r.verdicts())
	_, err := io.WriteString(w, b.String())
	return err
}

// machine is one line about where it was measured, and whether in full.
func (r *Result) machine() string {
	text := fmt.Sprintf("%s, %d CPUs (%s), Linux %s", r.Machine.CPU, r.Machine.CPUs, r.Machine.Arch, r.Machine.Kernel)
	for _, more := range []string{r.Machine.Cgroups, r.Machine.State} {
		if more != "" {
			text += ", " + more
		}
	}
	if r.Quick {
		text += "; a quick run, for a first look only"
	}
	return text
}

func (r *Result) baseline() string {
	if len(r.Columns) < 2 {
		return "nothing"
	}
	return r.Columns[1].Name
}

// row is one figure in all columns.
type row struct {
	Key   Key
	Title string
	Unit  string
	Cells []*Figure // as Columns; nil where there is none
}

// rows are the figures in the order in which they were first measured.
func (r *Result) rows() []row {
	var rows []row
	index := map[Key]int{}
	column := map[string]int{}
	for i, c := range r.Columns {
		column[c.Name] = i
	}
	for _, f := range r.Figures {
		i, ok := index[f.Key]
		if !ok {
			i = len(rows)
			index[f.Key] = i
			rows = append(rows, row{Key: f.Key, Title: f.Title, Unit: f.Unit, Cells: make([]*Figure, len(r.Columns))})
		}
		rows[i].Cells[column[f.Column]] = f
	}
	return grouped(rows)
}

// grouped keeps the lines of one metric together, sorted by their parameter; sections and
// metrics stay in the order of their first appearance.
func grouped(rows []row) []row {
	first := map[Key]int{}
	group := func(k Key) Key { k.Param = 0; return k }
	section := func(k Key) Key { return Key{Measure: k.Measure, Runtime: k.Runtime} }
	for i, r := range rows {
		for _, k := range []Key{group(r.Key), section(r.Key)} {
			if _, ok := first[k]; !ok {
				first[k] = i
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(first[section(a.Key)], first[section(b.Key)]),
			cmp.Compare(first[group(a.Key)], first[group(b.Key)]),
			cmp.Compare(a.Key.Param, b.Key.Param))
	})
	return rows
}

// widths are those of the titles and of the columns, so that all lines agree.
func (r *Result) widths(rows []row) []int {
	const gap = 3
	ws := make([]int, 1+len(r.Columns))
	for i, c := range r.Columns {
		ws[i+1] = len(c.Name) + gap
	}
	for _, row := range rows {
		ws[0] = max(ws[0], utf8.RuneCountInString(row.label())+gap)
		for i, f := range row.Cells {
			ws[i+1] = max(ws[i+1], utf8.RuneCountInString(cell(f))+gap)
		}
	}
	return ws
}

func (r *Result) tableHead(section string, ws []int) string {
	text := fmt.Sprintf("%-*s", ws[0], section)
	for i, c := range r.Columns {
		text += fmt.Sprintf("%*s", ws[i+1], c.Name)
	}
	return text + "\n"
}

func (r *Result) line(row row, ws []int) string {
	text := fmt.Sprintf("%-*s", ws[0], "  "+row.label())
	for i, f := range row.Cells {
		text += fmt.Sprintf("%*s", ws[i+1], cell(f))
	}
	return text + "\n"
}

// label is the title with its parameter and unit.
func (row row) label() string {
	text := row.Title
	if row.Key.Param > 0 {
		text += fmt.Sprintf(", %d %s", row.Key.Param, row.Key.paramName())
	}
	if row.Unit != "" {
		text += " [" + row.Unit + "]"
	}
	return text
}

// paramName says what the parameter counts.
func (k Key) paramName() string {
	switch {
	case k.Measure == "exec" || k.Metric == "exec":
		return "in flight"
	case k.Measure == "exit":
		return "running"
	}
	return "at once"
}

func cell(f *Figure) string {
	if f == nil {
		return "-"
	}
	text := short(f.Median) + " ±" + short(f.Spread)
	if f.Ratio != 0 {
		text += " " + ratio(f.Ratio)
	}
	return text
}

// ratio has two decimals, and where it is large or small the digits that matter.
func ratio(v float64) string {
	const small, large = 0.1, 10
	if v >= large || v < small {
		return "×" + short(v)
	}
	return fmt.Sprintf("×%.2f", v)
}

// short writes a number with three digits that matter.
func short(v float64) string {
	const digits = 3
	a := math.Abs(v)
	switch {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a < 0.001:
		return fmt.Sprintf("%.1g", v)
	}
	before := int(math.Floor(math.Log10(a))) + 1
	return fmt.Sprintf("%.*f", min(digits, max(0, digits-before)), v)
}
