package main

import (
	"flag"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/reference"
)

//go:generate go test -count 1 -run TestReference . -args -update

var update = flag.Bool("update", false, "bring docs/reference up to the code (make reference)")

// What a page says beyond the help text.
var moreOfFlags = map[string]string{
	"kubelet-dir":         "[Why](../adr/0019-paths-of-requests.md)",
	"kubernetes-events":   "[All of them](events.md)",
	"overprovision-ratio": "[Why 3](../adr/0016-pools-that-fill.md)",
	"work-dir":            "[Why private](../adr/0006-private-lvm-conf.md)",
}

// docs/reference/flags.md says what --help says.
func TestReferenceOfFlags(t *testing.T) {
	var rows [][]string
	fs := newFlagSet(new(options))
	fs.VisitAll(func(f *pflag.Flag) {
		placeholder, help := pflag.UnquoteUsage(f)
		dashes, value := "--", f.DefValue
		if len(f.Name) == 1 {
			dashes, value = "-", "0" // klog gives as the default of -v what it is now, which other tests change
		}
		switch {
		case slices.Contains([]string{"", "[]"}, value) || f.Name == "version":
			value = ""
		case value == "false":
			value = "off"
		default:
			value = "`" + value + "`"
		}
		text := reference.Text(help)
		if more := moreOfFlags[f.Name]; more != "" {
			text += ". " + more
		}
		rows = append(rows, []string{"`" + strings.TrimSpace(dashes+f.Name+" "+strings.ToUpper(placeholder)) + "`", value, text})
	})
	reference.Check(t, "../../docs/reference/flags.md", "flags", reference.Table([]string{"Flag", "Default", ""}, rows), *update)
}

// docs/reference/metrics.md says what a scrape says (# HELP).
func TestReferenceOfMetrics(t *testing.T) {
	const file = "../../docs/reference/metrics.md"
	types := map[string]string{"lvmsnap_rpc_duration_seconds": "histogram"} // it has no series before the first call
	gathered := prometheus.NewPedanticRegistry()
	registerAll(t, gathered, newEverything())
	families, err := gathered.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	table := func(d described) string {
		var rows [][]string
		for _, desc := range d.descs {
			labels := ""
			if len(desc.labels) > 0 {
				labels = "`" + strings.Join(desc.labels, "`, `") + "`"
			}
			if types[desc.name] == "" {
				t.Errorf("%s: of no type", desc.name)
			}
			rows = append(rows, []string{"`" + desc.name + "`", types[desc.name], labels, reference.Text(desc.help)})
		}
		return reference.Table([]string{"Metric", "Type", "Labels", ""}, rows)
	}
	var all, groups described
	registerAll(t, &all, nil)
	groups.MustRegister(newPoolMetrics(levels{}, klog.Background()))
	all.descs = slices.DeleteFunc(all.descs, func(d desc) bool {
		return slices.ContainsFunc(groups.descs, func(g desc) bool { return g.name == d.name })
	})
	slices.SortFunc(all.descs, func(a, b desc) int { return strings.Compare(a.name, b.name) })
	reference.Check(t, file, "pools and groups", table(groups), *update)
	reference.Check(t, file, "the driver", table(all), *update)

	var kinds [][]string
	for _, kind := range storage.RecoveryKinds {
		kinds = append(kinds, []string{"`" + string(kind) + "`", reference.Text(kind.Help())})
	}
	reference.Check(t, file, "recoveries", reference.Table([]string{"`kind`", ""}, kinds), *update)
}

// described is a registerer that keeps what the descriptors say.
type described struct{ descs []desc }

type desc struct {
	name, help string
	labels     []string
}

var descPattern = regexp.MustCompile(`fqName: "([^"]*)", help: "([^"]*)", unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)

// Register implements prometheus.Registerer.
func (d *described) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	for one := range descs {
		m := descPattern.FindStringSubmatch(one.String())
		out := desc{name: m[1], help: m[2]}
		for _, label := range slices.Concat(strings.Split(m[3], ","), strings.Split(m[4], ",")) {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				out.labels = append(out.labels, name)
			}
		}
		d.descs = append(d.descs, out)
	}
	return nil
}

// MustRegister implements prometheus.Registerer.
func (d *described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = d.Register(c)
	}
}

// Unregister implements prometheus.Registerer.
func (*described) Unregister(prometheus.Collector) bool { return false }

var _ prometheus.Registerer = (*described)(nil)
