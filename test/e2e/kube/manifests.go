// Package kube is what the tests of this module share: objects as the repository's files have them, applied to a real API
// server and awaited there.
package kube

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Repository is the path to this repository.
type Repository string

// Path of a file in the repository.
func (r Repository) Path(name string) string { return filepath.Join(string(r), name) }

// Example is a file of examples/: the flows use these, not copies.
func (r Repository) Example(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	return File(t, r.Path("examples/"+name))
}

// Kustomize is `kubectl kustomize` of a directory in deploy/.
func (r Repository) Kustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), r.Path("deploy/"+dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return Parse(t, string(text))
}

// Chart is what the Helm chart renders without values.
func Chart(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	return File(t, Environment(t, "E2E_CHART"))
}

// Environment is what the make targets say.
func Environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run make e2e, make e2e-nodes or make e2e-kubelet", name)
	}
	return value
}

// File reads a file with objects.
func File(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Parse(t, string(text))
}

// Parse reads a stream of YAML documents.
func Parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bufio.NewReader(strings.NewReader(text)), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// OfKind is the first object of this kind, nil if there is none.
func OfKind(objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	return Named(objects, kind, "")
}

// Named is the object of this kind and name, nil if there is none; an empty name is the first.
func Named(objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	i := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == kind && (name == "" || o.GetName() == name)
	})
	if i < 0 {
		return nil
	}
	return objects[i]
}

// Object names one that is not in a file.
func Object(apiVersion, kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetName(name)
	return o
}

// Field is a string, number or truth of an object as text; "" if it is not there.
func Field(o *unstructured.Unstructured, path ...string) string {
	value, found, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	if !found {
		return ""
	}
	return fmt.Sprint(value)
}
