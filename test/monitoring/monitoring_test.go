//go:build monitoring

// Package monitoring_test asks a real Prometheus, which scrapes the real driver on real LVM, every query of the dashboard and of
// the alerts (make test-monitoring).
package monitoring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	mib            = int64(1) << 20
	driverAddress  = "127.0.0.1:19090"
	monitorAddress = "127.0.0.1:19091"
	patience       = 2 * time.Minute
	deployed       = "../../deploy/monitoring"
	// envKeep is a directory that does not exist yet, for what Prometheus has recorded: to look at it, on any machine, with
	// prometheus --storage.tsdb.path.
	envKeep = "MONITORING_KEEP"
)

// eventually waits for what has to come by itself; what says what it is that did not.
func eventually(t *testing.T, fn func() (done bool, what string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		done, what := fn()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// node is a driver and what its clients have made.
type node struct {
	*driverproc.Driver
	t *testing.T
}

func (n node) volume(name string, bytes int64, parameters map[string]string) (id string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rsp, err := n.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: bytes}, Parameters: parameters,
		VolumeCapabilities: []*csi.VolumeCapability{blockVolume},
	})
	return rsp.GetVolume().GetVolumeId(), err
}

var blockVolume = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
}

// staged is a volume whose content is there, with its device.
func (n node) staged(name string, bytes int64, parameters map[string]string) (id string) {
	n.t.Helper()
	eventually(n.t, func() (bool, string) {
		var err error
		if id, err = n.volume(name, bytes, parameters); err != nil && status.Code(err) != codes.Aborted {
			n.t.Fatal(err)
		}
		return err == nil, fmt.Sprint(err)
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := n.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: n.t.TempDir(), VolumeCapability: blockVolume,
	}); err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n node) snapshot(name, volume string, parameters map[string]string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := n.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume, Parameters: parameters}); err != nil {
		n.t.Fatal(err)
	}
}

// prometheus is a real one.
type prometheus struct{ t *testing.T }

// startPrometheus starts it with the deployed alerts, on a directory of its own, until the end of the test.
func startPrometheus(t *testing.T) prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(deployed + "/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: [%q]\n"+
		"scrape_configs:\n  - job_name: lvmsnap\n    static_configs: [{ targets: [%q] }]\n", rules, driverAddress)
	if err := os.WriteFile(dir+"/prometheus.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("prometheus", "--config.file", dir+"/prometheus.yml", "--storage.tsdb.path", dir+"/data", "--web.listen-address", monitorAddress)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if keep := os.Getenv(envKeep); keep != "" {
			labtest.Run(t, "cp", "-r", dir+"/data", keep)
		}
		if t.Failed() {
			t.Logf("prometheus:\n%s", log.String())
		}
	})
	return prometheus{t}
}

// get asks Prometheus's API.
func (p prometheus) get(path string, values url.Values, into any) error {
	rsp, err := http.Get("http://" + monitorAddress + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer rsp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(rsp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s %s: %s", path, values.Encode(), answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// values are what a query says.
func (p prometheus) values(query string) ([]float64, error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.get("/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
		return nil, err
	}
	var out []float64
	for _, r := range data.Result {
		text, _ := r.Value[1].(string)
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// panelQueries are the dashboard's, with Grafana's variables filled in.
func panelQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(deployed + "/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			out[fmt.Sprintf("%d %s %s", panel.ID, panel.Title, target.RefID)] = strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(target.Expr)
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d queries", len(out))
	}
	return out
}

// TestDashboardAndAlerts: with something of everything on the node every panel has something to show, every rule can be
// evaluated, and what is shown is what is there.
func TestDashboardAndAlerts(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "128m", PoolMetadataSize: "8m"})
	labtest.Run(t, "lvcreate", "-y", "--type", "thin-pool", "--name", "off", "--size", "16m", vg.Name)
	n := node{driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: []string{
		"--metrics-address", driverAddress, "--pool-autoextend-threshold=50", "--copy-rate-limit=2Mi", "--overprovision-ratio=10",
	}}), t}
	labtest.Run(t, "lvchange", "--activate", "n", vg.Name+"/off") // something is wrong with a pool
	p := startPrometheus(t)

	thinPool, thick := map[string]string{"thinPool": "pool"}, map[string]string{"type": "thick"}
	thin := n.staged("thin", 96*mib, thinPool)
	n.snapshot("s1", thin, nil)
	labtest.Run(t, "dd", "if=/dev/zero", "of=/dev/"+vg.Name+"/"+filepath.Base(thin), "bs=1M", "count=80", "conv=fsync") // the pool is extended
	n.snapshot("s2", thin, nil)
	n.snapshot("s3", n.staged("thick", 8*mib, thick), map[string]string{"cowSize": "50%"})
	if _, err := n.volume("being-zeroed", 512*mib, thick); status.Code(err) != codes.Aborted { // for the rest of the test
		t.Fatalf("got %v", err)
	}

	queries := panelQueries(t)
	eventually(t, func() (bool, string) {
		var empty []string
		for name, query := range queries {
			if values, err := p.values(query); err != nil || len(values) == 0 {
				empty = append(empty, fmt.Sprintf("panel %s: %s: %d values, %v", name, query, len(values), err))
			}
		}
		return len(empty) == 0, strings.Join(empty, "\n")
	})
	t.Logf("%d queries of the dashboard have values", len(queries))

	for query, want := range map[string]float64{
		`sum(lvmsnap_volumes{type="thin", state="active"})`:     1,
		`sum(lvmsnap_volumes{type="thick", state="active"})`:    1,
		`sum(lvmsnap_volumes{type="thick", state="filling"})`:   1,
		`sum(lvmsnap_snapshots{type="thin", state="ready"})`:    2,
		`sum(lvmsnap_snapshots{type="thick", state="ready"})`:   1,
		`sum(lvmsnap_pool_condition{reason="PoolInactive"})`:    1,
		`sum(lvmsnap_cow_size_bytes)`:                           float64(4 * mib),
		`lvmsnap_pool_data_used_bytes{pool="pool"} >= bool 8e7`: 1,
		`lvmsnap_ready`: 1,
	} {
		if got, err := p.values(query); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v, %v, want %v", query, got, err, want)
		}
	}
	p.rules()
}

// rules: all of them are evaluated, and none fails.
func (p prometheus) rules() {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	eventually(p.t, func() (bool, string) {
		if err := p.get("/api/v1/rules", nil, &data); err != nil {
			return false, err.Error()
		}
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				if r.Health == "unknown" {
					return false, r.Name
				}
			}
		}
		return len(data.Groups) > 0, "no rules"
	})
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" {
				p.t.Errorf("%s: %s: %s", r.Name, r.Health, r.LastError)
			}
		}
		p.t.Logf("%d alerts are evaluated", len(g.Rules))
	}
}
