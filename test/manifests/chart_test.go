package manifests_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"sigs.k8s.io/yaml"
)

// `helm lint` has nothing to say; Chart.yaml without an icon is no mistake.
func TestLint(t *testing.T) {
	for _, message := range lint.All(chartDir, nil, namespace, true).Messages {
		if message.Severity > support.InfoSev || !strings.Contains(message.Err.Error(), "icon is recommended") {
			t.Error(message)
		}
	}
}

// A typing error in values does not silently mean the default.
func TestSchemaRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ values, words string }{
		"an unknown key":            {"drivr: {}", "drivr"},
		"an unknown key of driver":  {"driver: {volumeGroup: [x]}", "volumeGroup"},
		"no volume group":           {"driver: {volumeGroups: []}", "volumeGroups"},
		"a path as a volume group":  {"driver: {volumeGroups: [/dev/vg]}", "volumeGroups"},
		"an option as volume group": {"driver: {volumeGroups: [-rf]}", "volumeGroups"},
		"a volume group twice":      {"driver: {volumeGroups: [a, a]}", "volumeGroups"},
		"a relative kubeletDir":     {"driver: {kubeletDir: var/lib/kubelet}", "kubeletDir"},
		"kubeletDir with a slash":   {"driver: {kubeletDir: /var/lib/kubelet/}", "kubeletDir"},
		"a flag without dashes":     {"driver: {extraArgs: [copy-rate-limit=1]}", "extraArgs"},
		"a number in a variable":    {"driver: {extraEnv: [{name: A, value: 1}]}", "extraEnv"},
		"a number as a parameter":   {"storageClasses: [{name: a, parameters: {stripes: 2}}]", "stripes"},
		"a class without a name":    {"storageClasses: [{parameters: {}}]", "name"},
		"an unknown binding mode":   {"storageClasses: [{name: a, volumeBindingMode: Late}]", "volumeBindingMode"},
		"an unknown policy":         {"volumeSnapshotClasses: [{name: a, deletionPolicy: Keep}]", "deletionPolicy"},
		"an image with a space":     {"sidecars: {resizer: {image: 'a b'}}", "image"},
		"a timeout without a unit":  {"sidecars: {timeout: '60'}", "timeout"},
		"no resizer":                {"resizer: {replicas: 0}", "replicas"},
		"a port that is none":       {"metrics: {port: 70000}", "port"},
		"a monitor of no metrics":   {"metrics: {podMonitor: {enabled: true}}", "metrics"},
		"a label of the rules":      {"metrics: {prometheusRule: {labels: {a: 1}}}", "labels"},
		"a pull policy":             {"image: {pullPolicy: Sometimes}", "pullPolicy"},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]any{}
			if err := yaml.UnmarshalStrict([]byte(tt.values), &values); err != nil {
				t.Fatal(err)
			}
			_, err := renderValues(t, values)
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want an error about %q", err, tt.words)
			}
		})
	}
}

// Every value of the schema is in values.yaml with its default, so that values.yaml is its documentation. The entries of
// lists are documented by their first.
func TestValuesAreDocumented(t *testing.T) {
	var schema struct {
		Properties map[string]any `json:"properties"`
	}
	readYAML(t, chartDir+"/values.schema.json", &schema)
	values := map[string]any{}
	readYAML(t, chartDir+"/values.yaml", &values)
	delete(schema.Properties, "global") // Helm's own
	missing(t, "", schema.Properties, values)
	text, err := os.ReadFile(chartDir + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// A section without a word about it is not documented.
	for _, section := range slices.Sorted(maps.Keys(values)) {
		block := regexp.MustCompile(`(?ms)(^#[^\n]*\n)?^` + section + `:.*?(^\S|\z)`).FindString(string(text))
		if !strings.Contains(block, "#") {
			t.Errorf("values.yaml: %s has no comment", section)
		}
	}
}

func missing(t *testing.T, at string, properties, values map[string]any) {
	for name, property := range properties {
		value, ok := values[name]
		if !ok {
			t.Errorf("values.yaml does not have %s%s", at, name)
			continue
		}
		p := property.(map[string]any)
		if items, ok := p["items"].(map[string]any); ok && items["properties"] != nil {
			if list := value.([]any); len(list) > 0 {
				p, value = items, list[0]
			}
		}
		if sub, ok := p["properties"].(map[string]any); ok {
			if _, isResources := sub["limits"]; isResources {
				continue
			}
			if m, ok := value.(map[string]any); ok {
				missing(t, at+name+".", sub, m)
			}
		}
	}
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
