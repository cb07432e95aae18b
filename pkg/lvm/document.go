package lvm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// Document is the JSON that LVM writes for one command when log/report_command_log=1 and
// report/output_format=json: the rows it was asked for and the log of what it did. lvmreport(7).
type Document struct {
	Report []struct {
		LV []lvRow `json:"lv"`
		VG []vgRow `json:"vg"`
	} `json:"report"`
	Log []LogEntry `json:"log"`
}

// LogEntry is one row of the command log.
type LogEntry struct {
	Type    string `json:"log_type"`    // status, print, warn, error
	Context string `json:"log_context"` // processing, shell
	Object  string `json:"log_object_name"`
	Message string `json:"log_message"`
	RetCode string `json:"log_ret_code"`
}

// trailingComma is what LVM 2.03.16 leaves at the end of a successful shell command's log array.
var trailingComma = regexp.MustCompile(`,(\s*\])`)

// ParseDocument decodes what LVM wrote. No output at all is an empty document.
func ParseDocument(raw []byte) (Document, error) {
	var d Document
	if len(bytes.TrimSpace(raw)) == 0 {
		return d, nil
	}
	err := json.Unmarshal(raw, &d)
	if err != nil {
		d = Document{}
		// LVM escapes quotes in its messages, so a `,` before a `]` inside a string cannot be told from the
		// fault by this expression; it is only tried on what does not parse.
		err = json.Unmarshal(trailingComma.ReplaceAll(raw, []byte("$1")), &d)
	}
	if err != nil {
		return Document{}, fmt.Errorf("LVM's report is not JSON: %w", err)
	}
	return d, nil
}

// shellExitCode is the exit code that a command would have had outside the shell: the shell logs a status row
// of its own for what failed, and (2.03.16) none for what succeeded.
func (d Document) shellExitCode() int {
	for i := len(d.Log) - 1; i >= 0; i-- {
		e := d.Log[i]
		if e.Type != "status" || e.Context != "shell" {
			continue
		}
		switch e.RetCode {
		case "0", "1": // ECMD_PROCESSED is 1; LVM's own exit code for it is 0
			return 0
		case "2", "3", "5":
			return int(e.RetCode[0] - '0')
		default:
			return 5 // ECMD_FAILED
		}
	}
	return 0
}

// errorText joins LVM's own error messages, in its order.
func (d Document) errorText() string {
	var out []string
	for _, e := range d.Log {
		if e.Type == "error" {
			out = append(out, strings.TrimSpace(e.Message))
		}
	}
	return strings.Join(out, "; ")
}
