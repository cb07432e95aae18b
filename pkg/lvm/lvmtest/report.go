package lvmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// LVM's exit codes; lvm(8).
const (
	exitNoSuchCommand = 2
	exitUsage         = 3
	exitFailed        = 5
)

// result is what a command leaves.
type result struct {
	exitCode int
	errors   []string
	printed  string
	text     string // on standard error only, not in the log
	rowsName string // lv, vg; empty when the command is no report
	rows     []string
}

func success(printed string) result { return result{printed: printed} }

func failure(exitCode int, errors ...string) result {
	return result{exitCode: exitCode, errors: errors}
}

// usage is what getopt or LVM's own parser complain of.
func usage(errors ...string) result {
	r := failure(exitUsage, "Error during parsing of command line.")
	r.text = strings.Join(errors, "\n") + "\n"
	return r
}

// output writes the result as LVM would and reads it as the real executors do.
func (r result) output() (lvm.Output, error) {
	doc, err := lvm.ParseDocument(r.document())
	if err != nil {
		return lvm.Output{}, fmt.Errorf("lvmtest wrote what cannot be read: %w", err)
	}
	text := r.text
	for _, e := range r.errors {
		text += "  " + e + "\n"
	}
	if r.printed != "" {
		text += "  " + r.printed + "\n"
	}
	return lvm.Output{Document: doc, ExitCode: r.exitCode, Text: text}, nil
}

// document is the JSON of a command in LVM 2.03.16's layout, with the comma that its shell leaves behind.
func (r result) document() []byte {
	var log []string
	entry := func(kind, context, message, code string) {
		log = append(log, object(
			"log_seq_num", strconv.Itoa(len(log)+1), "log_type", kind, "log_context", context, "log_object_type", "cmd",
			"log_object_name", "", "log_object_id", "", "log_object_group", "", "log_object_group_id", "",
			"log_message", message, "log_errno", "0", "log_ret_code", code))
	}
	for _, e := range r.errors {
		entry("error", "processing", e, "0")
	}
	if r.printed != "" {
		entry("print", "processing", r.printed, "0")
	}
	var b strings.Builder
	b.WriteString("{\n")
	if r.rowsName != "" {
		fmt.Fprintf(&b, "    \"report\": [\n        {\n            %q: [\n", r.rowsName)
		b.WriteString(indent("                ", r.rows, ""))
		b.WriteString("            ]\n        }\n    ]\n    ,\n")
	}
	b.WriteString("    \"log\": [\n")
	if r.exitCode != 0 {
		entry("status", "shell", "failure", strconv.Itoa(r.exitCode))
		b.WriteString(indent("        ", log, ""))
	} else {
		b.WriteString(indent("        ", log, ","))
	}
	b.WriteString("    ]\n}\n")
	return []byte(b.String())
}

func indent(margin string, rows []string, last string) string {
	if len(rows) == 0 {
		return ""
	}
	return margin + strings.Join(rows, ",\n"+margin) + last + "\n"
}

// object is a JSON object with its fields in order, as LVM writes it: all values are strings.
func object(pairs ...string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q:", pairs[i])
		_ = enc.Encode(pairs[i+1]) // a string and a buffer do not fail
		b.Truncate(b.Len() - 1)    // its newline
	}
	b.WriteByte('}')
	return b.String()
}

// reportRow picks the requested fields.
func reportRow(r request, fields map[string]string) (string, *result) {
	var pairs []string
	for _, name := range strings.Split(r.value("--options"), ",") {
		value, ok := fields[name]
		if !ok {
			f := failure(exitFailed, "Unrecognised field: "+name)
			return "", &f
		}
		pairs = append(pairs, name, value)
	}
	return object(pairs...), nil
}

func (l *LVM) lvs(r request) result {
	g, failed := l.reported(r, "lv")
	if failed != nil {
		return *failed
	}
	out := result{rowsName: "lv"}
	for _, v := range g.sorted() {
		row, failed := reportRow(r, g.lvFields(v))
		if failed != nil {
			return *failed
		}
		out.rows = append(out.rows, row)
	}
	return out
}

func (l *LVM) vgs(r request) result {
	g, failed := l.reported(r, "vg")
	if failed != nil {
		return *failed
	}
	row, failed := reportRow(r, map[string]string{
		"vg_name": g.name, "vg_uuid": g.uuid, "vg_tags": "",
		"vg_size": number(g.sizeBytes), "vg_free": number(g.free()), "vg_extent_size": number(g.extent),
		"vg_mda_free": number(g.metadataFree()), "vg_mda_size": number(g.metadataArea),
		"vg_seqno": number(g.sequence), "vg_missing_pv_count": number(g.missingPVs),
	})
	if failed != nil {
		return *failed
	}
	return result{rowsName: "vg", rows: []string{row}}
}

func (l *LVM) reported(r request, rows string) (*group, *result) {
	if r.value("--units") != "b" || !r.has("--nosuffix") {
		f := usage("lvmtest: reports are read in bytes")
		return nil, &f
	}
	g, _, _, failed := l.find(r)
	if failed != nil {
		failed.rowsName = rows
	}
	return g, failed
}

func number[T int | int64 | uint64 | uint32](n T) string { return fmt.Sprintf("%d", n) }

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

func (g *group) lvFields(v *volume) map[string]string {
	f := map[string]string{
		"lv_name": v.name, "lv_uuid": v.uuid, "lv_size": number(v.size), "lv_tags": strings.Join(v.tags, ","),
		"lv_attr": g.attr(v), "origin": v.origin, "origin_size": "", "pool_lv": v.poolName, "segtype": "linear",
		"transaction_id": "", "thin_id": "", "data_percent": "", "metadata_percent": "",
	}
	switch {
	case v.pool != nil:
		f["segtype"] = "thin-pool"
		f["transaction_id"] = number(v.pool.txID)
		if g.poolActive(v) {
			f["data_percent"], f["metadata_percent"] = percent(g.dataPercent(v)), percent(v.pool.metadataUsed)
		}
	case v.poolName != "":
		f["segtype"] = "thin"
		f["transaction_id"], f["thin_id"] = number(v.txID), number(v.thinID)
		if v.active {
			chunk := g.volumes[v.poolName].pool.chunk
			f["data_percent"] = percent(float64(int64(len(v.blocks))*chunk) * 100 / float64(v.size))
		}
	}
	switch {
	case v.cow != nil:
		f["origin_size"] = number(v.cow.originBytes)
		if v.active {
			f["data_percent"] = percent(v.cow.percent(v.size))
		}
	case len(g.snapshots(v)) > 0:
		f["origin_size"] = number(v.size)
	}
	if v.segType != "" {
		f["segtype"] = v.segType
	}
	if v.foreignSegType != "" {
		f["segtype"] = v.foreignSegType
	}
	return f
}

func (g *group) attr(v *volume) string {
	if v.foreignAttr != "" {
		return v.foreignAttr
	}
	a := []byte("-wi-------")
	if !v.writable {
		a[1] = 'r'
	}
	active, open := v.active, v.open > 0
	zero := false
	switch {
	case v.pool != nil:
		a[0], a[6], zero = 't', 't', v.pool.zero
		open = active && len(g.thinVolumes(v.name)) > 0 // by its own layer above the hidden device
		if g.poolActive(v) {
			a[8] = g.poolHealth(v)
		}
	case v.poolName != "":
		a[0], a[6], zero = 'V', 't', g.volumes[v.poolName].pool.zero
	case v.cow != nil:
		a[0], a[6] = 's', 's'
	case len(g.snapshots(v)) > 0:
		a[0], a[6] = 'o', 's'
	}
	if v.images > 0 {
		a[6] = 'r'
		if a[0] == '-' {
			a[0] = 'r'
		}
	}
	if active {
		a[4] = 'a'
	}
	if v.suspended {
		a[4] = 's'
	}
	if active && v.cow != nil && v.cow.invalid { // only the kernel knows
		a[4] = 'I'
	}
	if open {
		a[5] = 'o'
	}
	if zero {
		a[7] = 'z'
	}
	if v.skip {
		a[9] = 'k'
	}
	return string(a)
}
