package manifests_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// strict decodes what the API server would, and refuses fields that the types do not have, and those given twice.
var strict = func() runtime.Decoder {
	utilruntime.Must(snapshotv1.AddToScheme(scheme.Scheme))
	utilruntime.Must(monitoringv1.AddToScheme(scheme.Scheme))
	return serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// object is a manifest, as text's tree and as the API's type.
type object struct {
	*unstructured.Unstructured
	typed runtime.Object
}

func (o object) key() string {
	return fmt.Sprintf("%s %s/%s", o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName())
}

// decode reads a stream of YAML documents; one that is not exactly what its type allows fails the test.
func decode(t *testing.T, source, text string) []object {
	t.Helper()
	var out []object
	reader := k8syaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		if blank(doc) {
			continue
		}
		typed, _, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", source, err, doc)
		}
		tree := &unstructured.Unstructured{}
		if err := k8syaml.Unmarshal(doc, &tree.Object); err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		out = append(out, object{tree, typed})
	}
}

func blank(doc []byte) bool {
	for line := range strings.Lines(string(doc)) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// chartObjects are the objects that the chart makes of a values file.
func chartObjects(t *testing.T, valuesFile string) []object {
	t.Helper()
	var out []object
	rendered := render(t, valuesFile)
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		out = append(out, decode(t, name, rendered[name])...)
	}
	return out
}

// kustomize is `kubectl kustomize DIR`.
func kustomize(t *testing.T, dir string) []object {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsRootOnly // as kubectl does
	result, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	text, err := result.AsYaml()
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return decode(t, dir, string(text))
}

// exampleFiles are the files of examples/ with their objects.
func exampleFiles(t *testing.T) map[string][]object {
	t.Helper()
	files, err := filepath.Glob(examplesDir + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	out := map[string][]object{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(file)] = decode(t, file, string(text))
	}
	return out
}
