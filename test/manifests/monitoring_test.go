package manifests_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const monitoringDir = "../../deploy/monitoring"

// ruleFile is what is of interest here in a file of rules; promtool looks at it whole (make test-monitoring).
type ruleFile struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The chart is the source of the alerts: for Prometheus without an operator, and for the kustomize component, they are copied.
func TestAlertsAreCopied(t *testing.T) {
	rule := render(t, "metrics.yaml")["prometheusrule.yaml"]
	for file, want := range map[string]string{
		monitoringDir + "/alerts.yaml":                           readText(t, chartDir+"/files/alerts.yaml"),
		kustomizeDir + "/components/metrics/prometheusrule.yaml": baseHeader + strings.TrimLeft(helmOnly.ReplaceAllString(rule, ""), "\n-"),
	} {
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, readText(t, file)); diff != "" {
			t.Errorf("%s is not what the chart has (-chart +file); `make manifests` writes it:\n%s", file, diff)
		}
	}
}

// metricName finds what a query asks for; the labels in it are quoted, or behind a brace or by(.
var metricName = regexp.MustCompile(`\b(lvmsnap_[a-z_]+|up|go_[a-z_]+|process_[a-z_]+)\b`)

// documentedMetrics are those of docs/reference/metrics.md, which cmd/lvmsnap's tests compare with the code.
func documentedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{"up": true}
	for _, row := range regexp.MustCompile("(?m)^\\| `(lvmsnap_[a-z_]+)` \\|").FindAllStringSubmatch(readText(t, "../../docs/reference/metrics.md"), -1) {
		out[row[1]] = true
	}
	return out
}

func unknownMetrics(query string, known map[string]bool) []string {
	var out []string
	for _, name := range metricName.FindAllString(query, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !known[name] && !known[base] && strings.HasPrefix(name, "lvmsnap_") {
			out = append(out, name)
		}
	}
	return out
}

// Every alert says how bad it is, what it is, and where to read on; asks for metrics that there are; and is seen firing and not.
func TestAlerts(t *testing.T) {
	var rules ruleFile
	readYAML(t, monitoringDir+"/alerts.yaml", &rules)
	runbooks := readText(t, "../../docs/how-to/runbooks.md")
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbooks, -1) {
		sections[m[1]] = true
	}
	fires, quiet := testedAlerts(t)
	known := documentedMetrics(t)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: no summary or description", r.Alert)
			}
			want := "https://github.com/lvmsnap/lvmsnap/blob/main/docs/how-to/runbooks.md#" + strings.ToLower(r.Alert)
			if r.Annotations["runbook_url"] != want || !sections[r.Alert] {
				t.Errorf("%s: runbook %s, which is there: %t", r.Alert, r.Annotations["runbook_url"], sections[r.Alert])
			}
			delete(sections, r.Alert)
			if bad := unknownMetrics(r.Expr, known); len(bad) > 0 {
				t.Errorf("%s asks for %v, which are not in docs/reference/metrics.md", r.Alert, bad)
			}
			if !fires[r.Alert] || !quiet[r.Alert] {
				t.Errorf("%s is not seen both firing and not in alerts_test.yaml", r.Alert)
			}
		}
	}
	if len(sections) > 0 {
		t.Errorf("runbooks of no alert: %v", slices.Sorted(maps.Keys(sections)))
	}
}

// testedAlerts are those that promtool's tests see firing, and those that they see not firing.
func testedAlerts(t *testing.T) (fires, quiet map[string]bool) {
	t.Helper()
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	readYAML(t, monitoringDir+"/alerts_test.yaml", &file)
	fires, quiet = map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, a := range test.AlertRuleTest {
			if len(a.ExpAlerts) > 0 {
				fires[a.Alertname] = true
			} else {
				quiet[a.Alertname] = true
			}
		}
	}
	return fires, quiet
}

// The dashboard is one that Grafana takes, and asks for metrics that there are; test/monitoring asks a real Prometheus.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Title, UID    string
		SchemaVersion int
		ID            *int
		Panels        []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(readText(t, monitoringDir+"/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.ID != nil || dashboard.UID == "" || dashboard.Title == "" || dashboard.SchemaVersion == 0 || len(dashboard.Panels) == 0 {
		t.Errorf("id %v, uid %q, title %q, schema %d, %d panels", dashboard.ID, dashboard.UID, dashboard.Title, dashboard.SchemaVersion, len(dashboard.Panels))
	}
	known := documentedMetrics(t)
	asked, ids := map[string]bool{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q: id %d, at %+v", p.Title, p.ID, p.GridPos)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			if bad := unknownMetrics(target.Expr, known); len(bad) > 0 {
				t.Errorf("panel %q asks for %v, which are not in docs/reference/metrics.md", p.Title, bad)
			}
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				for _, suffix := range []string{"_bucket", "_count", "_sum"} {
					name = strings.TrimSuffix(name, suffix)
				}
				asked[name] = true
			}
		}
	}
	// Worth a look, and no failure: a metric may be for alerts only, or new.
	for name := range known {
		if !asked[name] && name != "up" && name != "lvmsnap_stuck_after_seconds" && name != "lvmsnap_cow_autoextend_threshold_ratio" {
			t.Logf("no panel shows %s", name)
		}
	}
}
