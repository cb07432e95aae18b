package manifests_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// variants are the kustomize overlays with the values by which the chart makes the same.
var variants = map[string]string{
	"default":        "",
	"host-namespace": "host-namespace.yaml",
	"metrics":        "metrics.yaml",
}

// allSets are all values files that the chart is tested with.
var allSets = []string{"", "host-namespace.yaml", "metrics.yaml", "everything.yaml"}

// Who applies an overlay has what who installs the chart has.
func TestOverlaysAreTheChart(t *testing.T) {
	for overlay, values := range variants {
		t.Run(overlay, func(t *testing.T) {
			want, got := map[string]any{}, map[string]any{}
			for _, o := range chartObjects(t, values) {
				want[o.key()] = ordered(o)
			}
			for _, o := range kustomize(t, kustomizeDir+"/overlays/"+overlay) {
				if o.GetKind() == "Namespace" {
					if o.GetName() != namespace {
						t.Errorf("the namespace is %s", o.GetName())
					}
					continue // Helm makes it by --create-namespace
				}
				got[o.key()] = ordered(o)
			}
			for _, key := range bothKeys(want, got) {
				if diff := cmp.Diff(want[key], got[key]); diff != "" {
					t.Errorf("%s: overlay and chart differ (-chart +kustomize):\n%s", key, diff)
				}
			}
		})
	}
}

// ordered is the object without Helm's labels and with what has no order in an order.
func ordered(o object) map[string]any {
	u := o.DeepCopy()
	labels := u.GetLabels()
	delete(labels, "helm.sh/chart")
	delete(labels, "app.kubernetes.io/managed-by")
	u.SetLabels(labels)
	podSpec, found, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec")
	if !found {
		return u.Object
	}
	byText := func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	if volumes, ok := podSpec["volumes"].([]any); ok {
		slices.SortFunc(volumes, byText)
	}
	for _, c := range podSpec["containers"].([]any) {
		for _, list := range []string{"args", "volumeMounts", "ports"} {
			if items, ok := c.(map[string]any)[list].([]any); ok {
				slices.SortFunc(items, byText)
			}
		}
	}
	_ = unstructured.SetNestedMap(u.Object, podSpec, "spec", "template", "spec")
	return u.Object
}

// Nothing is made twice, and every set of values makes a DaemonSet, a Deployment and a CSIDriver: decoding is the test of types.
func TestChartObjects(t *testing.T) {
	for _, values := range allSets {
		t.Run("values "+values, func(t *testing.T) {
			kinds, seen := map[string]int{}, map[string]bool{}
			for _, o := range chartObjects(t, values) {
				if seen[o.key()] {
					t.Errorf("%s is made twice", o.key())
				}
				seen[o.key()] = true
				kinds[o.GetKind()]++
			}
			for _, kind := range []string{"CSIDriver", "DaemonSet", "Deployment"} {
				if kinds[kind] != 1 {
					t.Errorf("%d objects of kind %s", kinds[kind], kind)
				}
			}
		})
	}
}
