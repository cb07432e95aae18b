// Package manifests_test holds deploy/ and examples/ to account: there is one source, the Helm chart. The base for kustomize
// is rendered from it, its overlays are proven equal to the chart with values, and every object is what the API's types
// allow. It is a module of its own so that Helm, kustomize and Kubernetes stay out of the driver's go.mod.
package manifests_test

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	chartDir     = "../../deploy/helm/lvmsnap"
	kustomizeDir = "../../deploy/kustomize"
	baseDir      = kustomizeDir + "/base"
	examplesDir  = "../../examples"
	namespace    = "lvmsnap-system"
)

var (
	update   = flag.Bool("update", false, "write what is rendered: deploy/kustomize/base, testdata")
	rendered = flag.String("rendered", "", "a file for what the chart renders without values: make e2e applies it")
)

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// renderValues is what `helm template lvmsnap --namespace lvmsnap-system` makes of the values, as the text of each template.
// It refuses values that the schema refuses.
func renderValues(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	c := loadChart(t)
	release := chartutil.ReleaseOptions{Name: "lvmsnap", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range rendered {
		if path.Ext(name) == ".yaml" && strings.TrimSpace(text) != "" {
			out[path.Base(name)] = text
		}
	}
	return out, nil
}

// render renders the chart with the values of a file in testdata/values; "" is none.
func render(t *testing.T, valuesFile string) map[string]string {
	t.Helper()
	values := map[string]any{}
	if valuesFile != "" {
		text, err := os.ReadFile(filepath.Join("testdata", "values", valuesFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, &values); err != nil {
			t.Fatal(err)
		}
	}
	out, err := renderValues(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// helmOnly are labels that say who applies the objects: not for kubectl.
var helmOnly = regexp.MustCompile(`(?m)^ +(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n`)

const baseHeader = "# Rendered from deploy/helm/lvmsnap by `make manifests`: change the chart.\n"

// The base for kustomize is what the chart renders without values.
func TestBaseIsRendered(t *testing.T) {
	want := map[string]string{}
	byName := render(t, "")
	if *rendered != "" {
		var all strings.Builder
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			all.WriteString("---\n" + byName[name] + "\n")
		}
		if err := os.WriteFile(*rendered, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range byName {
		want[name] = baseHeader + strings.TrimLeft(helmOnly.ReplaceAllString(text, ""), "\n-")
	}
	var list bytes.Buffer
	list.WriteString(baseHeader + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n" +
		// No namespace: the objects have theirs, and kustomize would give it to a VolumeSnapshotClass, too.
		"resources:\n")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		list.WriteString("  - " + name + "\n")
	}
	want["kustomization.yaml"] = list.String()

	if *update {
		if err := os.RemoveAll(baseDir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(baseDir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(baseDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := map[string]string{}
	entries, err := os.ReadDir(baseDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(baseDir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[e.Name()] = string(text)
	}
	for _, name := range bothKeys(want, got) {
		if diff := cmp.Diff(want[name], got[name]); diff != "" {
			t.Errorf("deploy/kustomize/base/%s is not what the chart renders (-chart +base); `make manifests` writes it:\n%s", name, diff)
		}
	}
}

func bothKeys[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}
