//go:build lab

package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var watchLine = regexp.MustCompile(`(?m)^apiserver_longrunning_requests\{.*,resource="([a-z]*)".*verb="WATCH".*\} ([0-9]+)$`)

// watches is how many watches the API server serves, by resource.
func (c *cluster) watches() map[string]int {
	c.t.Helper()
	text, err := c.RESTClient().Get().AbsPath("/metrics").Do(context.Background()).Raw()
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range watchLine.FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[2])
		out[m[1]] += n
	}
	return out
}

// logCost says what one more node costs: its watches, and the memory of what runs on it.
func (c *cluster) logCost(before map[string]int) {
	c.t.Helper()
	total := 0
	var list []string
	for resource, n := range c.watches() {
		if more := n - before[resource]; more > 0 {
			total += more
			list = append(list, resource+" "+strconv.Itoa(more))
		}
	}
	c.t.Logf("one node more: %d watches (%s)", total, strings.Join(list, ", "))
	for _, program := range []string{"lvmsnap", "csi-provisioner", "csi-snapshotter", "csi-resizer", "snapshot-contro"} {
		c.t.Logf("memory of %s: %v", program, residentMemory(c.t, program))
	}
}

// residentMemory of all processes with this name, without what they share with their file: what the node pays for each.
func residentMemory(t *testing.T, name string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), "Name:\t"+name+"\n") {
			continue
		}
		var anon, shared string
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "RssAnon":
				anon = strings.TrimSpace(value)
			case "RssFile":
				shared = strings.TrimSpace(value)
			}
		}
		out = append(out, anon+" + "+shared+" of its file")
	}
	return out
}
