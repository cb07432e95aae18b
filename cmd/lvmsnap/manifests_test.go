package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The flags that deploy/ and the chart's values give to the driver are flags of this driver. test/manifests keeps the
// list, of what it renders.
func TestFlagsOfManifests(t *testing.T) {
	text, err := os.ReadFile("../../test/manifests/testdata/driver-inputs.json")
	if err != nil {
		t.Fatal(err)
	}
	var inputs struct{ Args [][]string }
	if err := json.Unmarshal(text, &inputs); err != nil {
		t.Fatal(err)
	}
	restoreVerbosity(t)
	hostNamespace, metrics, events := 0, 0, 0
	t.Setenv("NODE_NAME", "worker-1")
	for _, args := range inputs.Args {
		o, err := parseFlags(args, new(bytes.Buffer))
		if err != nil {
			t.Errorf("lvmsnap %s: %v", strings.Join(args, " "), err)
			continue
		}
		if o.nodeID != "worker-1" || o.endpoint != "unix:///csi/csi.sock" || o.workDir != "/run/lvmsnap" {
			t.Errorf("lvmsnap %s: node %q, endpoint %q, work directory %q", strings.Join(args, " "), o.nodeID, o.endpoint, o.workDir)
		}
		if o.hostNamespace {
			hostNamespace++
		}
		if o.metricsAddress != "" {
			metrics++
		}
		if o.kubernetesEvents {
			events++
		}
	}
	if len(inputs.Args) < 4 || hostNamespace == 0 || metrics == 0 || events == 0 || events == len(inputs.Args) {
		t.Errorf("of %d sets of flags %d are for the host's namespace, %d for metrics and %d for events", len(inputs.Args), hostNamespace, metrics, events)
	}
}
